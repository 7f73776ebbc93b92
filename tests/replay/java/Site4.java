import static org.eclipse.jgit.api.CreateBranchCommand.SetupUpstreamMode.TRACK;
import static org.eclipse.jgit.api.ResetCommand.ResetType.HARD;

import java.io.IOException;
import java.nio.file.Path;

import org.eclipse.jgit.lib.Constants;
import org.eclipse.jgit.lib.ObjectId;
import org.eclipse.jgit.merge.MergeStrategy;
import org.eclipse.jgit.revwalk.RevCommit;
import org.eclipse.jgit.treewalk.TreeWalk;

/** Publishes as Studio 3.x and 4.x do: in the work tree, on a branch of its own, which is merged at last. */
final class Site4 extends Site {
    Site4(Path folder) throws IOException {
        super(folder);
    }

    @Override
    String publish(String target, String path, long silence) throws Exception {
        String progress = target + "_in_progress";
        retrying(published.fetch());
        leaveCrashed();
        checkoutSandbox(progress);
        retrying(published.pull().setRemote("origin").setRemoteBranchName(SANDBOX_BRANCH)
            .setStrategy(MergeStrategy.THEIRS));
        ObjectId newest = repository().resolve(Constants.HEAD);
        ensureBranch(target);
        retrying(published.checkout().setCreateBranch(true).setStartPoint(target).setUpstreamMode(TRACK)
            .setName(progress));
        checkoutItem(newest, path);
        Thread.sleep(silence);
        RevCommit commit = retrying(published.commit().setMessage("Publish to " + target).setAuthor(who())
            .setCommitter(who()));
        retrying(published.tag().setTagger(who()).setMessage("Publish to " + target)
            .setName(System.nanoTime() + "_published_on_" + System.currentTimeMillis()));
        retrying(published.checkout().setName(target));
        // Studio does not look at what the merge says.
        retrying(published.merge().setCommit(true).include(repository().findRef(progress)));
        retrying(published.branchDelete().setForce(true).setBranchNames(progress));
        return commit.getName();
    }

    private void leaveCrashed() throws Exception {
        if (repository().getBranch().endsWith("_in_progress")) {
            retrying(published.reset().setMode(HARD));
        }
    }

    private void checkoutSandbox(String progress) throws Exception {
        boolean missing = repository().exactRef(Constants.R_HEADS + SANDBOX_BRANCH) == null;
        retrying(published.checkout().setName(SANDBOX_BRANCH).setCreateBranch(missing));
        retrying(published.branchDelete().setForce(true).setBranchNames(progress));
    }

    private void checkoutItem(ObjectId newest, String path) throws Exception {
        RevCommit commit = repository().parseCommit(newest);
        try (TreeWalk found = TreeWalk.forPath(repository(), path, commit.getTree())) {
            if (found == null) {
                retrying(published.rm().addFilepattern(path).setCached(false));
            } else {
                retrying(published.checkout().setStartPoint(newest.getName()).addPath(path));
            }
        }
    }
}
