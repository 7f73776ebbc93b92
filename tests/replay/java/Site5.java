import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

import org.eclipse.jgit.dircache.DirCache;
import org.eclipse.jgit.dircache.DirCacheBuilder;
import org.eclipse.jgit.dircache.DirCacheEditor;
import org.eclipse.jgit.dircache.DirCacheEntry;
import org.eclipse.jgit.lib.CommitBuilder;
import org.eclipse.jgit.lib.Constants;
import org.eclipse.jgit.lib.ObjectId;
import org.eclipse.jgit.lib.ObjectInserter;
import org.eclipse.jgit.lib.ObjectReader;
import org.eclipse.jgit.lib.RefUpdate;
import org.eclipse.jgit.lib.StoredConfig;
import org.eclipse.jgit.revwalk.RevTree;
import org.eclipse.jgit.treewalk.TreeWalk;

/**
 * Publishes as Studio 5.x does: past the work tree, by a commit that the target's branch is moved to at last.
 *
 * <p>What Studio's own update of the branch says is ignored by Studio; here it is told, as {@link Overrun}.
 */
final class Site5 extends Site {
    /** Whether trees are made through the repository's index, as Studio does; else in memory, without a trace. */
    private final boolean index;

    Site5(Path folder, boolean index) throws IOException {
        super(folder);
        this.index = index;
    }

    /** Studio's update of the branch was rejected: the database has the publish, the branch does not. */
    static final class Overrun extends Exception {
        private static final long serialVersionUID = 1L;

        /** Milliseconds since the publish had left a trace. */
        final long silent;

        Overrun(String target, RefUpdate.Result result, long silent) {
            super("the update of " + target + " ended as " + result);
            this.silent = silent;
        }
    }

    @Override
    String publish(String target, String path, long silence) throws Exception {
        ensureBranch(target);
        retrying(published.fetch());
        ObjectId newest = repository().resolve("refs/remotes/origin/" + SANDBOX_BRANCH);
        ObjectId parent = repository().resolve(Constants.R_HEADS + target);
        ObjectId commit = index ? committedByGit(newest, parent, path) : committed(newest, parent, path);
        Thread.sleep(silence); // The database, in the meantime.
        RefUpdate update = repository().updateRef(Constants.R_HEADS + target);
        update.setNewObjectId(commit);
        RefUpdate.Result result = update.update();
        if (result != RefUpdate.Result.FAST_FORWARD && result != RefUpdate.Result.NEW) {
            throw new Overrun(target, result, System.currentTimeMillis() - traced());
        }
        return commit.getName();
    }

    /** When the files that a publish touches were written last, in milliseconds since 1970. */
    private long traced() {
        File folder = repository().getDirectory();
        return Math.max(new File(folder, "FETCH_HEAD").lastModified(), new File(folder, "index").lastModified());
    }

    private ObjectId committed(ObjectId newest, ObjectId parent, String path) throws IOException {
        try (ObjectInserter inserter = repository().newObjectInserter()) {
            CommitBuilder commit = new CommitBuilder();
            commit.setTreeId(tree(newest, parent, path).writeTree(inserter));
            commit.setParentId(parent);
            commit.setAuthor(who());
            commit.setCommitter(who());
            commit.setMessage("Publish");
            ObjectId id = inserter.insert(commit);
            inserter.flush();
            return id;
        }
    }

    private DirCache tree(ObjectId newest, ObjectId parent, String path) throws IOException {
        DirCache cache = DirCache.newInCore();
        try (ObjectReader reader = repository().newObjectReader()) {
            DirCacheBuilder builder = cache.builder();
            builder.addTree(new byte[0], 0, reader, treeOf(parent));
            builder.finish();
        }
        DirCacheEditor editor = cache.editor();
        try (TreeWalk found = TreeWalk.forPath(repository(), path, treeOf(newest))) {
            if (found == null) {
                editor.add(new DirCacheEditor.DeletePath(path));
            } else {
                editor.add(new Entry(path, found));
            }
            editor.finish();
        }
        return cache;
    }

    private RevTree treeOf(ObjectId commit) throws IOException {
        return repository().parseCommit(commit).getTree();
    }

    private static final class Entry extends DirCacheEditor.PathEdit {
        private final TreeWalk found;

        Entry(String path, TreeWalk found) {
            super(path);
            this.found = found;
        }

        @Override
        public void apply(DirCacheEntry entry) {
            entry.setFileMode(found.getFileMode(0));
            entry.setObjectId(found.getObjectId(0));
        }
    }

    private ObjectId committedByGit(ObjectId newest, ObjectId parent, String path) throws Exception {
        git("", "read-tree", parent.getName());
        String entry = git("", "ls-tree", newest.getName(), path);
        // Zeros remove it.
        String line = entry.isEmpty() ? "0 " + ObjectId.zeroId().getName() + "\t" + path : entry;
        git(line + "\n", "update-index", "--index-info");
        String tree = git("", "write-tree");
        StoredConfig config = repository().getConfig();
        config.setString("user", null, "name", who().getName());
        config.setString("user", null, "email", who().getEmailAddress());
        config.save();
        return ObjectId.fromString(git("", "commit-tree", tree, "-p", parent.getName(), "-m", "Publish"));
    }

    /** Runs git in the published repository; returns what it prints. */
    private String git(String input, String... words) throws Exception {
        List<String> command = new ArrayList<>(List.of("git"));
        command.addAll(List.of(words));
        Process process = new ProcessBuilder(command).directory(repository().getDirectory())
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        try (OutputStream in = process.getOutputStream()) {
            in.write(input.getBytes("UTF-8"));
        }
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        try (InputStream out = process.getInputStream()) {
            out.transferTo(said);
        }
        if (process.waitFor() != 0) {
            throw new IOException(String.join(" ", command) + " failed");
        }
        return said.toString("UTF-8").strip();
    }
}
