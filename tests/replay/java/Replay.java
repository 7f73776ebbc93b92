import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URL;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.jar.JarInputStream;
import java.util.jar.Manifest;

import org.eclipse.jgit.api.Git;

/**
 * Publishes at random into sites of one folder, each by a thread of its own: once each until it reads {@code go},
 * so that every class is loaded, then until it reads {@code stop}.
 *
 * <p>Arguments: the way, the folder, the number of sites, and milliseconds: the shortest pause, the longest, the pause
 * that half of them are to hit, how far they may miss it, the longest silence. Tells a line for each publish, which ends
 * with the milliseconds that one that was overrun had been silent, and for each pull of a delivery node; tabs part the
 * fields.
 */
public final class Replay {
    private final String way;
    private final Random dice;
    private final int shortest;
    private final int longest;
    private final int aim;
    private final int spread;
    private final int silence;
    private volatile boolean stopped;

    private Replay(String way, int[] numbers, long seed) {
        this.way = way;
        this.dice = new Random(seed);
        this.shortest = numbers[0];
        this.longest = numbers[1];
        this.aim = numbers[2];
        this.spread = numbers[3];
        this.silence = numbers[4];
    }

    public static void main(String[] arguments) throws Exception {
        int sites = Integer.parseInt(arguments[2]);
        int[] numbers = new int[5];
        for (int each = 0; each < numbers.length; each++) {
            numbers[each] = Integer.parseInt(arguments[3 + each]);
        }
        tell("version", version());
        CountDownLatch warm = new CountDownLatch(sites);
        CountDownLatch going = new CountDownLatch(1);
        List<Thread> threads = new ArrayList<>();
        List<Replay> replays = new ArrayList<>();
        for (int each = 0; each < sites; each++) {
            Replay replay = new Replay(arguments[0], numbers, each);
            String name = "site" + each;
            Path folder = Path.of(arguments[1], name);
            Thread thread = new Thread(() -> replay.run(name, folder, warm, going));
            thread.start();
            threads.add(thread);
            replays.add(replay);
        }
        warm.await();
        tell("warm");
        wait("go");
        going.countDown();
        wait("stop");
        for (Replay each : replays) {
            each.stopped = true;
        }
        for (Thread each : threads) {
            each.join();
        }
        tell("stopped");
        wait("pull");
        for (int each = 0; each < sites; each++) {
            replays.get(each).pull("site" + each);
            replays.get(each).node.close();
        }
        tell("done");
    }

    private Node node;

    private void run(String name, Path folder, CountDownLatch warm, CountDownLatch going) {
        try (Site site = open(folder)) {
            node = new Node(folder.resolve("published"), folder.resolve("node"), "staging");
            publish(name, site, 0);
            pull(name);
            warm.countDown();
            going.await();
            for (int number = 1; !stopped; number++) {
                publish(name, site, number);
                if (number % 5 == 0) {
                    pull(name);
                }
                Thread.sleep(pause());
            }
        } catch (Exception error) {
            warm.countDown();
            tell("broken", name, "", "", "", error.toString(), "0");
        }
    }

    private Site open(Path folder) throws Exception {
        return way.equals("4.x") ? new Site4(folder) : new Site5(folder, !way.equals("5.x, in memory"));
    }

    /** Of ten publishes, six go to live, and so to staging before; one of these deletes its item. */
    private void publish(String name, Site site, int number) throws Exception {
        boolean live = dice.nextInt(10) < 6;
        String path = live ? "site/website/item-" + dice.nextInt(30) + "/index.xml"
            : "site/website/staged-" + number + "/index.xml";
        boolean there = site.folder.resolve("sandbox").resolve(path).toFile().exists();
        String text = live && there && dice.nextInt(6) == 0 ? null : "<page>" + number + "</page>\n";
        site.edit(path, text);
        for (String target : live ? List.of("staging", "live") : List.of("staging")) {
            publish(name, site, target, path, text);
        }
    }

    private void publish(String name, Site site, String target, String path, String text) {
        String result = "published";
        String commit = "";
        long silent = 0;
        try {
            commit = site.publish(target, path, dice.nextInt(silence + 1));
        } catch (Site5.Overrun error) {
            result = "overrun";
            commit = error.getMessage();
            silent = error.silent;
        } catch (Exception error) {
            result = "failed";
            commit = error.toString();
        }
        tell(result, name, target, path, text == null ? "" : text.strip(), commit, Long.toString(silent));
    }

    private void pull(String name) {
        try {
            tell("pull", name, node.pull());
        } catch (Exception error) {
            tell("pull", name, "wrong\t" + error);
        }
    }

    /** Draws a pause: half of them aim at the moment when a sync moves the branch. */
    private int pause() {
        if (aim > 0 && dice.nextBoolean()) {
            return aim + dice.nextInt(spread + 1);
        }
        return shortest + dice.nextInt(longest - shortest + 1);
    }

    private static synchronized void tell(String... fields) {
        for (int each = 0; each < fields.length; each++) {
            fields[each] = fields[each].replace("\n", " ");
        }
        System.out.println(String.join("\t", fields));
        System.out.flush();
    }

    private static final BufferedReader INPUT = new BufferedReader(new InputStreamReader(System.in));

    private static void wait(String word) throws Exception {
        String line = INPUT.readLine();
        if (!word.equals(line)) {
            throw new IllegalStateException("expected " + word + ", not " + line);
        }
    }

    private static String version() throws Exception {
        URL jar = Git.class.getProtectionDomain().getCodeSource().getLocation();
        try (JarInputStream stream = new JarInputStream(jar.openStream())) {
            Manifest manifest = stream.getManifest();
            String told = manifest == null ? null : manifest.getMainAttributes().getValue("Bundle-Version");
            return told == null ? jar.getPath() : told;
        }
    }
}
