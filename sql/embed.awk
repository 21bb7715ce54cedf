# Makes C texts of SQL files: sql/0001_name.sql becomes mm_sql_0001_name[].
# part=h: the declarations; part=c: the definitions.
BEGIN {
    print "/* Generated from sql/ by sql/embed.awk. */"
    if (part == "h") {
        print "#ifndef MM_SQL_TEXTS_H\n#define MM_SQL_TEXTS_H\n#include <stddef.h>"
    } else {
        print "#include \"sql_texts.h\""
    }
}
FNR == 1 {
    name = FILENAME
    sub(/^.*\//, "", name)
    sub(/\.sql$/, "", name)
    if (open) {
        print "    ;"
    }
    open = part != "h"
    printf part == "h" ? "extern const char mm_sql_%s[];\n" : "const char mm_sql_%s[] =\n", name
}
part != "h" {
    gsub(/\\/, "\\\\\\\\")
    gsub(/"/, "\\\"")
    print "    \"" $0 "\\n\""
}
END {
    if (open) {
        print "    ;"
    }
    if (part == "h") {
        print "#endif"
    }
}
