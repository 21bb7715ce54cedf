# A host in Tcl: host.tcl DATABASE EXTENSION, the protocol of README.
package require sqlite3

lassign $argv file extension
fconfigure stdin -encoding utf-8
fconfigure stdout -encoding utf-8 -buffering line
sqlite3 first $file
first timeout 5000
first enable_load_extension 1
first eval {SELECT load_extension($extension)}

while {[gets stdin line] >= 0} {
    if {$line eq ".quit"} break
    if {$line eq ".exit"} {exit 0}
    if {[string match ".print *" $line]} {
        puts [string range $line 7 end]
        continue
    }
    set db first
    if {[string match ".other *" $line]} {
        set line [string range $line 7 end]
        set db second
        if {[info commands second] eq ""} {
            sqlite3 second $file
            second timeout 5000
        }
    }
    if {[catch {
        $db eval $line row {
            puts [join [lmap name $row(*) {set row($name)}] |]
        }
    } message]} {
        puts "Error: $message"
    }
}
if {[info commands second] ne ""} {second close}
first close
