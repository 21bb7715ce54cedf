// A host in Go: host DATABASE EXTENSION, the protocol of README.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// open gives one connection of a pool of its own.
func open(driver, file string) *sql.Conn {
	db, err := sql.Open(driver, file+"?_busy_timeout=5000")
	if err == nil {
		var c *sql.Conn
		if c, err = db.Conn(context.Background()); err == nil {
			return c
		}
	}
	fmt.Println("Error: " + err.Error())
	os.Exit(1)
	return nil
}

func run(c *sql.Conn, text string) error {
	rows, err := c.QueryContext(context.Background(), text)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	values := make([]sql.NullString, len(names))
	into := make([]any, len(names))
	for k := range values {
		into[k] = &values[k]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		line := make([]string, len(values))
		for k, v := range values {
			line[k] = v.String
		}
		fmt.Println(strings.Join(line, "|"))
	}
	return rows.Err()
}

// finish closes the connection itself, not only its place in the pool.
func finish(c *sql.Conn) {
	if c == nil {
		return
	}
	err := c.Raw(func(driver any) error { return driver.(*sqlite3.SQLiteConn).Close() })
	if err != nil {
		fmt.Println("Error: " + err.Error())
		os.Exit(1)
	}
}

func main() {
	sql.Register("marmot", &sqlite3.SQLiteDriver{Extensions: []string{os.Args[2]}})
	first := open("marmot", os.Args[1])
	var second *sql.Conn
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		line := lines.Text()
		if line == ".quit" {
			break
		}
		if line == ".exit" {
			os.Exit(0)
		}
		if words, ok := strings.CutPrefix(line, ".print "); ok {
			fmt.Println(words)
			continue
		}
		c := first
		if text, ok := strings.CutPrefix(line, ".other "); ok {
			if second == nil {
				second = open("sqlite3", os.Args[1])
			}
			c, line = second, text
		}
		if err := run(c, line); err != nil {
			fmt.Println("Error: " + err.Error())
		}
	}
	finish(second)
	finish(first)
}
