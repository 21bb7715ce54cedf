/* As much of XML as the answers of WebDAV and S3 need: elements and their
** texts, one after another. Names come without namespace prefix; attributes,
** comments and declarations are passed over.
**
** Threads: none of its own. Ownership: borrows the text. */
#ifndef MM_SNAPSHOT_XML_H
#define MM_SNAPSHOT_XML_H

#include <stdbool.h>
#include <stddef.h>

struct mm_xml {
    const char *at, *end;
    bool open;    /* the element begins; else it ends, and `text` is what stood before its end */
    bool closing; /* of an empty element: its end comes next */
    char name[64];
    char text[1024]; /* decoded, cut at its size */
};

void mm_xml_init(struct mm_xml *x, const char *text, size_t len);
/* The next beginning or end of an element; false at the end of the text, or where it is no XML. */
bool mm_xml_next(struct mm_xml *x);
/* The text of the first element of that name; "" when there is none. */
void mm_xml_find(const char *text, size_t len, const char *name, char *out, size_t size);

#endif
