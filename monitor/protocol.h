/*
 * The protocol between gantryd and gantry-monitor.
 *
 * An AF_UNIX SOCK_SEQPACKET socket; every packet is one message:
 *
 *   header   u16 version, u16 type, u32 reserved (0), u64 id
 *   fields   any number of: u16 tag, u16 length, <length> bytes
 *
 * Integers are little endian and unaligned. A string field holds its
 * terminating NUL and no other one. A nested field holds fields.
 *
 * A request carries an id that its sender chooses and that is not 0; any number
 * may be outstanding, and replies come in any order with the id of their
 * request. A reply without GM_TAG_ERRNO is a success. An event has the id 0.
 * A request about a container that the monitor does not know fails with ENXIO.
 *
 * A field with an unknown tag is skipped, unless the tag has GM_TAG_CRITICAL
 * set: then the message is refused with ENOTSUP. An unknown request type is
 * answered with ENOSYS. So a monitor that has outlived several daemons still
 * understands the next one, and constants are never renumbered.
 *
 * The values below are pinned by a test of internal/monitor: one plain
 * "#define NAME number" a line.
 */
#ifndef GANTRY_PROTOCOL_H
#define GANTRY_PROTOCOL_H

#define GM_VERSION 1
#define GM_HEADER_SIZE 16
#define GM_FIELD_SIZE 4
/* The largest message in either direction; a larger one is answered with E2BIG. */
#define GM_MAX_MESSAGE 65536
/* What a failed RUNTIME create said on its stderr is cut to its last bytes. */
#define GM_MAX_OUTPUT 4096
#define GM_ID_LENGTH 64

/* Requests, with the fields they take. */

/* Starts a session. -> VERSION, PID */
#define GM_HELLO 1
/* CONTAINER, ARG..., PID_FILE, EXIT_FILE, TIMEOUT_MS [LOG_PATH LOG_LIMIT OOM_FILE FLAGS CONSOLE
 * OWNER_UID OWNER_GID JOURNAL JOURNAL_FIELDS MOUNT...] -> PID; or ERRNO, ERROR and, if the
 * runtime ran, EXIT_STATUS or SIGNAL, OUTPUT */
#define GM_CREATE 2
/* CONTAINER, SIGNAL -> ; ESRCH once it has exited */
#define GM_KILL 3
/* CONTAINER */
#define GM_REOPEN_LOG 4
/* -> ENTRY..., in several replies: all but the last carry MORE */
#define GM_LIST 5
/* CONTAINER; EBUSY while it runs, success if it is unknown */
#define GM_FORGET 6
/* EBUSY while a container runs */
#define GM_SHUTDOWN 7
/* One GM_EXIT event for each container that has exited and is not forgotten,
 * at once or when it does; a GM_LOG event for each whose log can't be written,
 * and for each change of that. The reply comes before the first of them. */
#define GM_SUBSCRIBE 8
/* CONTAINER, COLUMNS, ROWS; ENOTTY without a terminal */
#define GM_RESIZE 9
/* CONTAINER; closes the container's standard input after what is under way */
#define GM_CLOSE_STDIN 10
/* CONTAINER, FLAGS: after the reply this connection carries stream packets */
#define GM_ATTACH 11

/* What the monitor sends. */

#define GM_REPLY 128
/* CONTAINER, PID, EXIT_CODE, SIGNAL, OOM_KILLED, FINISHED, LOG_LOST */
#define GM_EXIT 129
/* CONTAINER, LOG_LOST [ERRNO]: the log can't be written, why, and how many bytes
 * of output are lost; without ERRNO it can be written again */
#define GM_LOG 130

/* Tags. */

#define GM_TAG_CRITICAL 32768

#define GM_TAG_ERRNO 1
#define GM_TAG_ERROR 2
#define GM_TAG_VERSION 3
#define GM_TAG_PID 4
#define GM_TAG_CONTAINER 5
#define GM_TAG_ARG 6
#define GM_TAG_PID_FILE 7
#define GM_TAG_EXIT_FILE 8
#define GM_TAG_LOG_PATH 9
#define GM_TAG_LOG_LIMIT 10
#define GM_TAG_OOM_FILE 11
#define GM_TAG_FLAGS 12
#define GM_TAG_CONSOLE 13
#define GM_TAG_TIMEOUT_MS 14
#define GM_TAG_SIGNAL 15
#define GM_TAG_EXIT_STATUS 16
#define GM_TAG_OUTPUT 17
#define GM_TAG_ENTRY 18
#define GM_TAG_MORE 19
#define GM_TAG_STATE 20
#define GM_TAG_EXIT_CODE 21
#define GM_TAG_OOM_KILLED 22
#define GM_TAG_FINISHED 23
#define GM_TAG_LOG_LOST 24
#define GM_TAG_COLUMNS 25
#define GM_TAG_ROWS 26
/* The socket of journald, and the fields that go with each of its messages, in
 * the form of its protocol. */
#define GM_TAG_JOURNAL 27
#define GM_TAG_JOURNAL_FIELDS 28

/* Whom the pipes of the container's output and input belong to, on the node. */
#define GM_TAG_OWNER_UID 60
#define GM_TAG_OWNER_GID 61

/* A mount, nested: TARGET and either LOWER... [UPPER WORK OPTION... IDS_PID] or FROM_PID, SOURCE.
 * IDS_PID is a process in whose user namespace the layers' files have the owners that they have
 * on disk. */
#define GM_TAG_MOUNT 32800
#define GM_TAG_TARGET 33
#define GM_TAG_LOWER 34
#define GM_TAG_UPPER 35
#define GM_TAG_WORK 36
#define GM_TAG_OPTION 32805
#define GM_TAG_FROM_PID 38
#define GM_TAG_SOURCE 39
#define GM_TAG_IDS_PID 32830

/* FLAGS of GM_CREATE. */
#define GM_STDIN 1
#define GM_STDIN_ONCE 2
#define GM_TTY 4

/* FLAGS of GM_ATTACH: the streams wanted. */
#define GM_ATTACH_STDIN 1
#define GM_ATTACH_STDOUT 2
#define GM_ATTACH_STDERR 4

/* STATE. */
#define GM_STATE_CREATING 1
#define GM_STATE_RUNNING 2
#define GM_STATE_EXITED 3

/*
 * Stream packets, both ways after GM_ATTACH: one byte of kind, then data. A
 * STDIN, STDOUT or STDERR packet without data ends that stream.
 */
#define GM_STREAM_STDIN 0
#define GM_STREAM_STDOUT 1
#define GM_STREAM_STDERR 2
/* u64: so many bytes of output were dropped here, because the client read too slowly. */
#define GM_STREAM_LOST 3
/* u32 exit code, u32 signal: the container has ended; the last packet. */
#define GM_STREAM_EXIT 4
/* The most data in one stream packet. */
#define GM_STREAM_MAX 32768

#endif
