import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.Callable;

import org.eclipse.jgit.api.Git;
import org.eclipse.jgit.api.errors.JGitInternalException;
import org.eclipse.jgit.errors.LockFailedException;
import org.eclipse.jgit.lib.Constants;
import org.eclipse.jgit.lib.PersonIdent;
import org.eclipse.jgit.lib.Repository;

/** A site's two repositories, and what both publishers do with them. */
abstract class Site implements AutoCloseable {
    static final String SANDBOX_BRANCH = "master";

    /** How often Studio tries again where a lock is held. */
    private static final int LOCK_RETRIES = 50;

    final Path folder;
    final Git sandbox;
    final Git published;

    Site(Path folder) throws IOException {
        this.folder = folder;
        this.sandbox = Git.open(folder.resolve("sandbox").toFile());
        this.published = Git.open(folder.resolve("published").toFile());
    }

    /** Publishes an item, whose newest content is in the sandbox, to one target; returns the new commit's id. */
    abstract String publish(String target, String path, long silence) throws Exception;

    /** Saves an item in the sandbox; null deletes it. */
    void edit(String path, String text) throws Exception {
        Path file = folder.resolve("sandbox").resolve(path);
        if (text == null) {
            sandbox.rm().addFilepattern(path).call();
        } else {
            Files.createDirectories(file.getParent());
            Files.write(file, text.getBytes("UTF-8"));
            sandbox.add().addFilepattern(path).call();
        }
        sandbox.commit().setMessage("Edit").setAuthor(who()).setCommitter(who()).call();
    }

    Repository repository() {
        return published.getRepository();
    }

    PersonIdent who() {
        return new PersonIdent("Studio", "studio@example.com");
    }

    /** Makes a target's branch if it is missing: of live, or of the sandbox if there is no live yet. */
    void ensureBranch(String target) throws Exception {
        if (repository().exactRef(Constants.R_HEADS + target) == null) {
            boolean live = repository().exactRef(Constants.R_HEADS + "live") != null;
            retrying(published.branchCreate().setName(target).setStartPoint(live ? "live" : SANDBOX_BRANCH));
        }
    }

    /** Calls a command of JGit's, again where a lock is held; anything else is fatal to the publish. */
    static <T> T retrying(Callable<T> command) throws Exception {
        for (int attempt = 1; ; attempt++) {
            try {
                return command.call();
            } catch (JGitInternalException error) {
                if (!(error.getCause() instanceof LockFailedException) || attempt == LOCK_RETRIES) {
                    throw error;
                }
                Thread.sleep(20);
            }
        }
    }

    @Override
    public void close() {
        sandbox.close();
        published.close();
    }
}
