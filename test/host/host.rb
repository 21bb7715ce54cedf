# A host in Ruby: host.rb DATABASE EXTENSION, the protocol of README.
require 'sqlite3'

file, extension = ARGV
$stdout.sync = true
connect = lambda do
  db = SQLite3::Database.new(file)
  db.busy_timeout(5000)
  db
end

first = connect.call
first.enable_load_extension(true)
first.load_extension(extension)
second = nil
$stdin.each_line(chomp: true) do |line|
  break if line == '.quit'
  exit(0) if line == '.exit'
  if line.start_with?('.print ')
    puts line[7..]
    next
  end
  db = first
  if line.start_with?('.other ')
    db = (second ||= connect.call)
    line = line[7..]
  end
  begin
    db.execute(line) { |row| puts row.to_a.join('|') }
  rescue SQLite3::Exception => e
    puts "Error: #{e.message}"
  end
end
second&.close
first.close
