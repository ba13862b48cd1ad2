/*
 * A program that writes a database with whatever SQLite it is linked with, and knows nothing of us.
 *
 * Reads requests from its input and answers them in order on its output. Numbers are little endian as the machine has them: both sides run on one machine.
 *
 *   O conn text          opens the file named; a connection that was open is closed
 *   C conn               closes
 *   X conn text          runs statements that stand in one text
 *   P conn slot text values   runs one statement with values bound, kept prepared in its slot
 *   V                    answers the version in the place of the changes
 *   F                    sends what was answered; has no answer itself
 *
 * Answer: code (i32), changes (i32), whether outside a transaction (u8), the message of an error.
 * Texts are a u32 length and their bytes; values a u8 count and each a tag: n, i (i64), r (f64), t and b (a text).
 * The prototypes stand here, because the headers of a SQLite are not always where its library is.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
int sqlite3_open(const char *, sqlite3 **);
int sqlite3_close(sqlite3 *);
int sqlite3_exec(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
int sqlite3_prepare_v2(sqlite3 *, const char *, int, sqlite3_stmt **, const char **);
int sqlite3_step(sqlite3_stmt *);
int sqlite3_reset(sqlite3_stmt *);
int sqlite3_finalize(sqlite3_stmt *);
int sqlite3_bind_null(sqlite3_stmt *, int);
int sqlite3_bind_int64(sqlite3_stmt *, int, long long);
int sqlite3_bind_double(sqlite3_stmt *, int, double);
int sqlite3_bind_text(sqlite3_stmt *, int, const char *, int, void (*)(void *));
int sqlite3_bind_blob(sqlite3_stmt *, int, const void *, int, void (*)(void *));
int sqlite3_changes(sqlite3 *);
int sqlite3_get_autocommit(sqlite3 *);
int sqlite3_extended_result_codes(sqlite3 *, int);
const char *sqlite3_errmsg(sqlite3 *);
int sqlite3_libversion_number(void);
#define TRANSIENT ((void (*)(void *))-1)

enum { CONNS = 8, SLOTS = 256, ROW = 100, DONE = 101 };

static struct conn {
  sqlite3 *db;
  sqlite3_stmt *kept[SLOTS];
  char *texts[SLOTS];
} conns[CONNS];

static void stop(const char *why) {
  fprintf(stderr, "writer: %s\n", why);
  exit(2);
}

static void take(void *into, size_t bytes) {
  if (bytes > 0 && fread(into, 1, bytes, stdin) != bytes) stop("a request ends in its middle");
}

static uint32_t take_u32(void) {
  uint32_t n;
  take(&n, sizeof n);
  return n;
}

static char *take_text(uint32_t *length) {
  *length = take_u32();
  char *text = malloc((size_t)*length + 1);
  if (!text) stop("out of memory");
  take(text, *length);
  text[*length] = 0;
  return text;
}

static void answer(sqlite3 *db, int32_t code, int32_t changes) {
  const char *message = code && db ? sqlite3_errmsg(db) : "";
  uint32_t length = (uint32_t)strlen(message);
  uint8_t outside = db ? (uint8_t)sqlite3_get_autocommit(db) : 1;
  fwrite(&code, sizeof code, 1, stdout);
  fwrite(&changes, sizeof changes, 1, stdout);
  fwrite(&outside, 1, 1, stdout);
  fwrite(&length, sizeof length, 1, stdout);
  fwrite(message, 1, length, stdout);
}

static void forget(struct conn *conn, int slot) {
  sqlite3_finalize(conn->kept[slot]);
  free(conn->texts[slot]);
  conn->kept[slot] = NULL;
  conn->texts[slot] = NULL;
}

static int close_conn(struct conn *conn) {
  for (int slot = 0; slot < SLOTS; slot++) forget(conn, slot);
  int code = sqlite3_close(conn->db);
  conn->db = NULL;
  return code;
}

static int bind_values(sqlite3_stmt *statement) {
  uint8_t count, tag;
  int code = 0;
  take(&count, 1);
  for (int at = 1; at <= count; at++) {
    int64_t integer;
    double real;
    char *bytes;
    uint32_t length;
    int bound = 0;
    take(&tag, 1);
    switch (tag) {
      case 'n': bound = statement ? sqlite3_bind_null(statement, at) : 0; break;
      case 'i':
        take(&integer, sizeof integer);
        bound = statement ? sqlite3_bind_int64(statement, at, integer) : 0;
        break;
      case 'r':
        take(&real, sizeof real);
        bound = statement ? sqlite3_bind_double(statement, at, real) : 0;
        break;
      case 't':
      case 'b':
        bytes = take_text(&length);
        if (statement && tag == 't') bound = sqlite3_bind_text(statement, at, bytes, (int)length, TRANSIENT);
        if (statement && tag == 'b') bound = sqlite3_bind_blob(statement, at, bytes, (int)length, TRANSIENT);
        free(bytes);
        break;
      default: stop("a value without a type");
    }
    if (bound) code = bound;
  }
  return code;
}

static void run_prepared(struct conn *conn) {
  uint8_t slot;
  uint32_t length;
  take(&slot, 1);
  char *text = take_text(&length);
  int code = 0;
  if (!conn->texts[slot] || strcmp(conn->texts[slot], text)) {
    forget(conn, slot);
    code = sqlite3_prepare_v2(conn->db, text, (int)length, &conn->kept[slot], NULL);
    if (!code) conn->texts[slot] = text;
  }
  if (conn->texts[slot] != text) free(text);
  sqlite3_stmt *statement = conn->kept[slot];
  int bound = bind_values(statement);
  if (code || bound) {
    answer(conn->db, code ? code : bound, 0);
    return;
  }
  do code = sqlite3_step(statement);
  while (code == ROW);
  answer(conn->db, code == DONE ? 0 : code, code == DONE ? sqlite3_changes(conn->db) : 0);
  sqlite3_reset(statement);
}

int main(void) {
  setvbuf(stdout, NULL, _IOFBF, 1 << 16);
  setvbuf(stdin, NULL, _IOFBF, 1 << 16);
  int request;
  while ((request = getchar()) != EOF) {
    if (request == 'F') {
      fflush(stdout);
      continue;
    }
    if (request == 'V') {
      answer(NULL, 0, sqlite3_libversion_number());
      continue;
    }
    int number = getchar();
    if (number < 0 || number >= CONNS) stop("no such connection");
    struct conn *conn = &conns[number];
    uint32_t length;
    char *text;
    int code;
    switch (request) {
      case 'O':
        text = take_text(&length);
        close_conn(conn);
        code = sqlite3_open(text, &conn->db);
        if (!code) sqlite3_extended_result_codes(conn->db, 1);
        answer(conn->db, code, 0);
        free(text);
        break;
      case 'C':
        answer(NULL, close_conn(conn), 0);
        break;
      case 'X':
        text = take_text(&length);
        code = sqlite3_exec(conn->db, text, NULL, NULL, NULL);
        answer(conn->db, code, code ? 0 : sqlite3_changes(conn->db));
        free(text);
        break;
      case 'P':
        run_prepared(conn);
        break;
      default: stop("no such request");
    }
  }
  return 0;
}
