// Leaks: a child started with ProcessBuilder that the JVM does not wait for. It has the JVM's
//   stdout and stderr.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that waits for CMD only: that Process objects are gone with the JVM, and
//   that CMD exits with 0, says nothing about the processes.

import java.io.IOException;

class JavaProcessBuilder {
    public static void main(String[] arguments) throws IOException, InterruptedException {
        String mode = String.join(" ", arguments);
        if (!mode.equals("leak") && !mode.equals("clean")) {
            System.err.println("usage: java java_process_builder.java leak|clean");
            System.exit(2);
        }
        endAfter(30);
        // It is in place when start() returns: that waits for the exec. A JVM handles SIGPIPE, so
        // its children have the default: the shell is for that.
        Process child = new ProcessBuilder("/bin/sh", "-c", "trap '' PIPE; exec sleep 120")
            .inheritIO()
            .start();
        if (mode.equals("clean")) {
            child.destroy();
            child.waitFor();
        }
    }

    /** Ends the JVM after so many seconds, but does not keep it alive until then. */
    static void endAfter(int seconds) {
        Thread thread = new Thread(() -> {
            try {
                Thread.sleep(seconds * 1000L);
            } catch (InterruptedException ignored) {
                // Then it ends at once.
            }
            Runtime.getRuntime().halt(1);
        });
        thread.setDaemon(true);
        thread.start();
    }
}
