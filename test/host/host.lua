-- A host in Lua: luajit host.lua DATABASE EXTENSION, the protocol of README.
local ffi = require("ffi")
ffi.cdef [[
typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
int sqlite3_open(const char *, sqlite3 **);
int sqlite3_close(sqlite3 *);
int sqlite3_busy_timeout(sqlite3 *, int);
int sqlite3_enable_load_extension(sqlite3 *, int);
int sqlite3_load_extension(sqlite3 *, const char *, const char *, char **);
const char *sqlite3_errmsg(sqlite3 *);
int sqlite3_prepare_v2(sqlite3 *, const char *, int, sqlite3_stmt **, const char **);
int sqlite3_step(sqlite3_stmt *);
int sqlite3_column_count(sqlite3_stmt *);
const char *sqlite3_column_text(sqlite3_stmt *, int);
int sqlite3_finalize(sqlite3_stmt *);
]]
local sqlite = ffi.load("libsqlite3.so.0")
local ROW, DONE = 100, 101
local file, extension = arg[1], arg[2]
io.stdout:setvbuf("line")

local function connect()
  local out = ffi.new("sqlite3 *[1]")
  assert(sqlite.sqlite3_open(file, out) == 0, "cannot open " .. file)
  sqlite.sqlite3_busy_timeout(out[0], 5000)
  return out[0]
end

local function run(db, sql)
  local out = ffi.new("sqlite3_stmt *[1]")
  if sqlite.sqlite3_prepare_v2(db, sql, -1, out, nil) ~= 0 then
    return print("Error: " .. ffi.string(sqlite.sqlite3_errmsg(db)))
  end
  local rc = sqlite.sqlite3_step(out[0])
  while rc == ROW do
    local row = {}
    for k = 0, sqlite.sqlite3_column_count(out[0]) - 1 do
      local text = sqlite.sqlite3_column_text(out[0], k)
      row[#row + 1] = text ~= nil and ffi.string(text) or ""
    end
    print(table.concat(row, "|"))
    rc = sqlite.sqlite3_step(out[0])
  end
  if rc ~= DONE then
    print("Error: " .. ffi.string(sqlite.sqlite3_errmsg(db)))
  end
  sqlite.sqlite3_finalize(out[0])
end

local first, second = connect(), nil
sqlite.sqlite3_enable_load_extension(first, 1)
if sqlite.sqlite3_load_extension(first, extension, nil, nil) ~= 0 then
  error(ffi.string(sqlite.sqlite3_errmsg(first)))
end
for line in io.lines() do
  if line == ".quit" then
    break
  elseif line == ".exit" then
    os.exit(0)
  elseif line:sub(1, 7) == ".print " then
    print(line:sub(8))
  elseif line:sub(1, 7) == ".other " then
    second = second or connect()
    run(second, line:sub(8))
  else
    run(first, line)
  end
end
if second then
  assert(sqlite.sqlite3_close(second) == 0, "the second connection does not close")
end
assert(sqlite.sqlite3_close(first) == 0, "the connection does not close")
