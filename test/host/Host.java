import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.sqlite.SQLiteConfig;

/** A host in Java: Host DATABASE EXTENSION, the protocol of lib/host_kinds.py. */
public class Host {
    static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    static Connection open(String file) throws SQLException {
        SQLiteConfig config = new SQLiteConfig();
        config.enableLoadExtension(true);
        config.setBusyTimeout(5000);
        return config.createConnection("jdbc:sqlite:" + file);
    }

    static void run(Connection db, String sql) throws SQLException {
        try (Statement statement = db.createStatement()) {
            if (!statement.execute(sql)) {
                return;
            }
            try (ResultSet rows = statement.getResultSet()) {
                while (rows.next()) {
                    StringBuilder line = new StringBuilder();
                    for (int k = 1; k <= rows.getMetaData().getColumnCount(); k++) {
                        String value = rows.getString(k);
                        line.append(k > 1 ? "|" : "").append(value == null ? "" : value);
                    }
                    OUT.println(line);
                }
            }
        }
    }

    public static void main(String[] words) throws Exception {
        Connection first = open(words[0]);
        try (PreparedStatement load = first.prepareStatement("SELECT load_extension(?)")) {
            load.setString(1, words[1]);
            load.executeQuery().close();
        }
        Connection second = null;
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null && !line.equals(".quit"); line = in.readLine()) {
            if (line.equals(".exit")) {
                System.exit(0);
            }
            if (line.startsWith(".print ")) {
                OUT.println(line.substring(7));
                continue;
            }
            Connection db = first;
            if (line.startsWith(".other ")) {
                second = second == null ? open(words[0]) : second;
                db = second;
                line = line.substring(7);
            }
            try {
                run(db, line);
            } catch (SQLException e) {
                OUT.println("Error: " + e.getMessage());
            }
        }
        if (second != null) {
            second.close();
        }
        first.close();
    }
}
