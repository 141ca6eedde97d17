package storage

import (
	"context"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// ForwardLibraryLogs sends what containers/storage and containers/image log
// to log instead of standard error: warnings and worse, and everything where
// log is enabled for debugging. The libraries have one logger per process, so
// main calls this once, before Open.
func ForwardLibraryLogs(log *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	FollowLogLevel(log)
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(forward{log})
}

// FollowLogLevel has the libraries make what log takes now.
func FollowLogLevel(log *slog.Logger) {
	level := logrus.WarnLevel
	if log.Enabled(context.Background(), slog.LevelDebug) {
		level = logrus.DebugLevel
	}
	logrus.StandardLogger().SetLevel(level)
}

// forward is a hook that hands entries to a slog.Logger.
type forward struct{ log *slog.Logger }

// Levels says that entries of every level are wanted.
func (forward) Levels() []logrus.Level { return logrus.AllLevels }

// Fire passes one entry on.
func (f forward) Fire(e *logrus.Entry) error {
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	attrs := make([]any, 0, 2*len(e.Data)+2)
	attrs = append(attrs, "from", "containers")
	for k, v := range e.Data {
		attrs = append(attrs, k, v)
	}
	f.log.Log(ctx, slogLevel(e.Level), e.Message, attrs...)
	return nil
}

func slogLevel(l logrus.Level) slog.Level {
	switch l {
	case logrus.DebugLevel, logrus.TraceLevel:
		return slog.LevelDebug
	case logrus.InfoLevel:
		return slog.LevelInfo
	case logrus.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}
