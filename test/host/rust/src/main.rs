//! A host in Rust: host DATABASE EXTENSION, the protocol of README.
use rusqlite::types::ValueRef;
use rusqlite::{Connection, LoadExtensionGuard, Result};
use std::io::BufRead;
use std::time::Duration;

fn open(file: &str) -> Result<Connection> {
    let db = Connection::open(file)?;
    db.busy_timeout(Duration::from_secs(5))?;
    Ok(db)
}

fn text(value: ValueRef) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(v) => v.to_string(),
        ValueRef::Real(v) => v.to_string(),
        ValueRef::Text(v) | ValueRef::Blob(v) => String::from_utf8_lossy(v).into_owned(),
    }
}

fn run(db: &Connection, sql: &str) -> Result<()> {
    let mut statement = db.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: Result<Vec<String>> = (0..columns).map(|k| Ok(text(row.get_ref(k)?))).collect();
        println!("{}", line?.join("|"));
    }
    Ok(())
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let first = open(&words[1])?;
    unsafe {
        let _guard = LoadExtensionGuard::new(&first)?;
        first.load_extension(&words[2], None::<&str>)?;
    }
    let mut second: Option<Connection> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line of UTF-8");
        if line == ".quit" {
            break;
        }
        if line == ".exit" {
            std::process::exit(0);
        }
        if let Some(words) = line.strip_prefix(".print ") {
            println!("{words}");
            continue;
        }
        let done = match line.strip_prefix(".other ") {
            Some(sql) => {
                if second.is_none() {
                    second = Some(open(&words[1])?);
                }
                run(second.as_ref().expect("just opened"), sql)
            }
            None => run(&first, &line),
        };
        if let Err(e) = done {
            println!("Error: {e}");
        }
    }
    if let Some(db) = second {
        db.close().map_err(|(_, e)| e)?;
    }
    first.close().map_err(|(_, e)| e)
}
