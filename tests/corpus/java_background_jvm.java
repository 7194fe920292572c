// Leaks: a second JVM, started in the background, whose main thread has ended; a thread that is no
//   daemon keeps it alive. A process of many threads.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that counts threads for processes, and one whose patience ends before a
//   JVM reacts: at SIGTERM it runs its shutdown hooks first.

import java.io.IOException;
import java.nio.file.Path;

class JavaBackgroundJvm {
    public static void main(String[] arguments) throws IOException, InterruptedException {
        switch (String.join(" ", arguments)) {
            case "leak", "clean" -> first(arguments[0].equals("leak"));
            case "second jvm" -> second();
            default -> {
                System.err.println("usage: java java_background_jvm.java leak|clean");
                System.exit(2);
            }
        }
    }

    static void first(boolean leak) throws IOException, InterruptedException {
        endAfter(30, 1, true);
        String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        Process second = new ProcessBuilder(
            java, "-Xmx64m", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
            source(), "second", "jvm")
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
        if (second.getInputStream().read() != 'r') {
            System.exit(1);
        }
        if (!leak) {
            second.destroy();
            second.waitFor();
        }
    }

    static void second() {
        endAfter(120, 0, false);
        System.out.print('r');
        System.out.close();
        // The main thread ends here.
    }

    /** This file: the launcher tells its path to nobody, but it is in the arguments of the JVM. */
    static String source() {
        for (String argument : ProcessHandle.current().info().arguments().orElseThrow()) {
            if (argument.endsWith(".java")) {
                return argument;
            }
        }
        throw new IllegalStateException("not started as java FILE");
    }

    /** Ends the JVM after so many seconds. A daemon thread does not keep it alive until then. */
    static void endAfter(int seconds, int status, boolean daemon) {
        Thread thread = new Thread(() -> {
            try {
                Thread.sleep(seconds * 1000L);
            } catch (InterruptedException ignored) {
                // Then it ends at once.
            }
            Runtime.getRuntime().halt(status);
        });
        thread.setDaemon(daemon);
        thread.start();
    }
}
