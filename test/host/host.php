<?php
// A host in PHP: php -d sqlite3.extension_dir=DIR host.php DATABASE EXTENSION, the protocol of README.
[, $file, $extension] = $argv;

function connect($file)
{
    $db = new SQLite3($file);
    $db->enableExceptions(true);
    $db->busyTimeout(5000);
    return $db;
}

$first = connect($file);
$first->loadExtension(basename($extension));
$second = null;
while (($line = fgets(STDIN)) !== false) {
    $line = rtrim($line, "\n");
    if ($line === '.quit') {
        break;
    }
    if ($line === '.exit') {
        exit(0);
    }
    if (str_starts_with($line, '.print ')) {
        echo substr($line, 7), "\n";
        continue;
    }
    $db = $first;
    if (str_starts_with($line, '.other ')) {
        $second ??= connect($file);
        $db = $second;
        $line = substr($line, 7);
    }
    try {
        $rows = $db->query($line);
        // A statement without columns has been run by query(): fetchArray would run it once more.
        while ($rows->numColumns() > 0 && ($row = $rows->fetchArray(SQLITE3_NUM)) !== false) {
            echo implode('|', $row), "\n";
        }
        $rows->finalize();
    } catch (Exception $e) {
        echo 'Error: ', $e->getMessage(), "\n";
    }
}
if ($second !== null) {
    $second->close();
}
$first->close();
