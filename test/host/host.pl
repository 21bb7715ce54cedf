# A host in Perl: host.pl DATABASE EXTENSION, the protocol of README.
use strict;
use warnings;
use DBI;
use DBD::SQLite;

my ($file, $extension) = @ARGV;
$| = 1;
binmode STDIN, ':utf8';
binmode STDOUT, ':utf8';

sub connect_to {
    my $db = DBI->connect("dbi:SQLite:dbname=$file", '', '', { RaiseError => 1, PrintError => 0, sqlite_unicode => 1 });
    $db->sqlite_busy_timeout(5000);
    return $db;
}

my $first = connect_to();
$first->sqlite_enable_load_extension(1);
$first->sqlite_load_extension($extension);
my $second;

while (my $line = <STDIN>) {
    chomp $line;
    last if $line eq '.quit';
    exit 0 if $line eq '.exit';
    if ($line =~ s/^\.print //) {
        print "$line\n";
        next;
    }
    my $db = $first;
    if ($line =~ s/^\.other //) {
        $second //= connect_to();
        $db = $second;
    }
    eval {
        my $statement = $db->prepare($line);
        $statement->execute;
        if ($statement->{NUM_OF_FIELDS}) {
            while (my $row = $statement->fetchrow_arrayref) {
                print join('|', map { $_ // '' } @$row), "\n";
            }
        }
    };
    print "Error: $@\n" if $@;
}
$second->disconnect if $second;
$first->disconnect;
