#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "create.h"
#include "sys.h"

/* Takes the descriptor that came with a message, if it is a terminal's master. */
static int receive_master(int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char data[256];
	struct iovec part = { .iov_base = data, .iov_len = sizeof(data) };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	AUTO_CLOSE int master = -1;
	struct cmsghdr *header;
	unsigned number;

	if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) < 0)
		return -errno;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EBADMSG;
	memcpy(&master, CMSG_DATA(header), sizeof(master));
	if (ioctl(master, TIOCGPTN, &number) < 0)
		return -ENOTTY;
	return take_fd(&master);
}

/* The runtime's connection can be read. */
static void message_ready(struct monitor *m, struct source *s, uint32_t events)
{
	struct creation *creation = owner_of(s, struct creation, console);
	int master = receive_master(s->fd);

	(void)events;
	if (master == -EAGAIN)
		return;
	console_close(m, creation);
	if (master >= 0)
		creation->master = master;
}

/* The runtime has connected: its connection takes the listener's place. */
static void listener_ready(struct monitor *m, struct source *s, uint32_t events)
{
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0)
		return;
	loop_close(m, s);
	s->fd = fd;
	s->ready = message_ready;
	loop_watch(m, s, EPOLLIN);
}

int console_listen(struct monitor *m, struct creation *creation, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	mode_t before;
	int rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	creation->console_path = strdup(path);
	creation->console.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	creation->console.ready = listener_ready;
	if (!creation->console_path || creation->console.fd < 0)
		return -errno;
	unlink(path);
	before = umask(0177);
	rc = bind(creation->console.fd, (struct sockaddr *)&address, sizeof(address));
	umask(before);
	if (rc < 0 || listen(creation->console.fd, 1) < 0)
		return -errno;
	return loop_watch(m, &creation->console, EPOLLIN);
}

void console_finish(struct monitor *m, struct creation *creation)
{
	/* What the runtime sent before it ended may still wait for us. */
	if (creation->console.fd >= 0 && creation->console.ready == listener_ready)
		listener_ready(m, &creation->console, EPOLLIN);
	if (creation->console.fd >= 0 && creation->console.ready == message_ready)
		message_ready(m, &creation->console, EPOLLIN);
}

void console_close(struct monitor *m, struct creation *creation)
{
	loop_close(m, &creation->console);
	if (creation->console_path)
		unlink(creation->console_path);
}
