package monitor

// The constants of monitor/protocol.h, under their names there; a test compares
// the two. That file describes the protocol.
const (
	gmVersion    = 1
	gmHeaderSize = 16
	gmFieldSize  = 4
	gmMaxMessage = 65536
	gmMaxOutput  = 4096
	gmIDLength   = 64

	gmHello      = 1
	gmCreate     = 2
	gmKill       = 3
	gmReopenLog  = 4
	gmList       = 5
	gmForget     = 6
	gmShutdown   = 7
	gmSubscribe  = 8
	gmResize     = 9
	gmCloseStdin = 10
	gmAttach     = 11

	gmReply = 128
	gmExit  = 129
	gmLog   = 130

	gmTagCritical      = 32768
	gmTagErrno         = 1
	gmTagError         = 2
	gmTagVersion       = 3
	gmTagPid           = 4
	gmTagContainer     = 5
	gmTagArg           = 6
	gmTagPidFile       = 7
	gmTagExitFile      = 8
	gmTagLogPath       = 9
	gmTagLogLimit      = 10
	gmTagOomFile       = 11
	gmTagFlags         = 12
	gmTagConsole       = 13
	gmTagTimeoutMs     = 14
	gmTagSignal        = 15
	gmTagExitStatus    = 16
	gmTagOutput        = 17
	gmTagEntry         = 18
	gmTagMore          = 19
	gmTagState         = 20
	gmTagExitCode      = 21
	gmTagOomKilled     = 22
	gmTagFinished      = 23
	gmTagLogLost       = 24
	gmTagColumns       = 25
	gmTagRows          = 26
	gmTagJournal       = 27
	gmTagJournalFields = 28
	gmTagOwnerUid      = 60
	gmTagOwnerGid      = 61
	gmTagMount         = 32800
	gmTagTarget        = 33
	gmTagLower         = 34
	gmTagUpper         = 35
	gmTagWork          = 36
	gmTagOption        = 32805
	gmTagFromPid       = 38
	gmTagSource        = 39
	gmTagIdsPid        = 32830

	gmStdin     = 1
	gmStdinOnce = 2
	gmTty       = 4

	gmAttachStdin  = 1
	gmAttachStdout = 2
	gmAttachStderr = 4

	gmStateCreating = 1
	gmStateRunning  = 2
	gmStateExited   = 3

	gmStreamStdin  = 0
	gmStreamStdout = 1
	gmStreamStderr = 2
	gmStreamLost   = 3
	gmStreamExit   = 4
	gmStreamMax    = 32768
)
