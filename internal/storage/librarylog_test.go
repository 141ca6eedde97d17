package storage

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestForwardLibraryLogs(t *testing.T) {
	std := logrus.StandardLogger()
	out, level := std.Out, std.GetLevel()
	t.Cleanup(func() {
		std.ReplaceHooks(logrus.LevelHooks{})
		std.SetOutput(out)
		std.SetLevel(level)
	})
	var buf bytes.Buffer
	ForwardLibraryLogs(slog.New(slog.NewTextHandler(&buf, nil)))
	logrus.WithField("layer", "x").Warnf("careful with %d", 7)
	logrus.Debug("noise")
	if got := buf.String(); !strings.Contains(got, `level=WARN msg="careful with 7" from=containers layer=x`) || strings.Contains(got, "noise") {
		t.Errorf("%s", got)
	}
}
