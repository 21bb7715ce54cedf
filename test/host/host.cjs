// A host in JavaScript: host.cjs DRIVER DATABASE EXTENSION, the protocol of README.
// DRIVER is node:sqlite (Node and Deno), better-sqlite3, sqlite3 or bun:sqlite.
const readline = require("node:readline");

const [driver, file, extension] = process.argv.slice(2);

// Each gives rows(sql), which may be a promise, and close().
const drivers = {
  "node:sqlite"(load) {
    const { DatabaseSync } = require("node:sqlite");
    const db = new DatabaseSync(file, { allowExtension: true, timeout: 5000 });
    if (load) db.loadExtension(extension);
    return { rows: (sql) => db.prepare(sql).all(), close: () => db.close() };
  },
  "better-sqlite3"(load) {
    const db = new (require("better-sqlite3"))(file);
    if (load) db.loadExtension(extension);
    const rows = (sql) => {
      const statement = db.prepare(sql);
      return statement.reader ? statement.all() : (statement.run(), []);
    };
    return { rows, close: () => db.close() };
  },
  async sqlite3(load) {
    const { Database } = require("sqlite3");
    const { promisify } = require("node:util");
    const db = await new Promise((done, fail) => {
      const fresh = new Database(file, (e) => (e ? fail(e) : done(fresh)));
    });
    db.configure("busyTimeout", 5000);
    if (load) await promisify(db.loadExtension).call(db, extension);
    return { rows: promisify(db.all).bind(db), close: promisify(db.close).bind(db) };
  },
  "bun:sqlite"(load) {
    const { Database } = require("bun:sqlite");
    const db = new Database(file);
    db.run("PRAGMA busy_timeout = 5000");
    if (load) db.loadExtension(extension);
    return { rows: (sql) => db.query(sql).all(), close: () => db.close(true) };
  },
};

async function main() {
  const first = await drivers[driver](true);
  let second = null;
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line === ".quit") break;
    if (line === ".exit") process.exit(0);
    if (line.startsWith(".print ")) {
      console.log(line.slice(7));
      continue;
    }
    const other = line.startsWith(".other ");
    if (other) second ??= await drivers[driver](false);
    try {
      for (const row of await (other ? second : first).rows(other ? line.slice(7) : line)) {
        console.log(Object.values(row).map((v) => v ?? "").join("|"));
      }
    } catch (e) {
      console.log("Error: " + e.message);
    }
  }
  await second?.close();
  await first.close();
  process.stdin.destroy();
}

main();
