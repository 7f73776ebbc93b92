import static org.eclipse.jgit.api.ResetCommand.ResetType.HARD;

import java.nio.file.Path;
import java.util.List;

import org.eclipse.jgit.api.Git;
import org.eclipse.jgit.api.PullResult;
import org.eclipse.jgit.lib.Constants;
import org.eclipse.jgit.lib.Repository;
import org.eclipse.jgit.merge.MergeStrategy;

/** A delivery node, which pulls one branch as Crafter's Deployer does. */
final class Node implements AutoCloseable {
    private final String branch;
    private final Git git;

    Node(Path published, Path folder, String branch) throws Exception {
        this.branch = branch;
        this.git = Git.cloneRepository().setURI(published.toString()).setDirectory(folder.toFile())
            .setCloneAllBranches(false).setBranchesToClone(List.of(Constants.R_HEADS + branch)).setBranch(branch)
            .call();
    }

    /** Pulls; returns whether the node then has the tree of the branch, and what the pull says. */
    String pull() throws Exception {
        git.reset().setMode(HARD).setRef(Constants.HEAD).call();
        PullResult result = git.pull().setRemote("origin").setRemoteBranchName(branch)
            .setStrategy(MergeStrategy.THEIRS).call();
        boolean equal = tree(Constants.HEAD).equals(tree("refs/remotes/origin/" + branch));
        boolean right = equal && git.status().call().isClean();
        return (right ? "right" : "wrong") + "\t" + result.getMergeResult().getMergeStatus();
    }

    private String tree(String revision) throws Exception {
        Repository repository = git.getRepository();
        return repository.parseCommit(repository.resolve(revision)).getTree().getName();
    }

    @Override
    public void close() {
        git.close();
    }
}
