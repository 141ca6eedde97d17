package monitor

import (
	"errors"
	"testing"

	"github.com/gantry-cri/gantry/internal/statefile"
)

// FuzzExitRecord: what is not what the monitor wrote is damaged.
func FuzzExitRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"finished":1,"exit_code":3,"signal":0,"oom_killed":false,"log_lost":0,"sum":1}`))
	f.Add([]byte(`{"version":1,"sum":0}`))
	f.Add([]byte(`,"sum":`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseExit(body)
		if err != nil {
			if !errors.Is(err, statefile.ErrDamaged) {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		if e := r.exit(); r.Finished == 0 && e != (Exit{}) {
			t.Errorf("%q: %+v", body, e)
		}
	})
}

// FuzzReply: no answer of a monitor ends the daemon.
func FuzzReply(f *testing.F) {
	f.Add([]byte{gmTagErrno, 0, 4, 0, 28, 0, 0, 0})
	f.Add([]byte{gmTagExitStatus, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, gmTagErrno, 0, 4, 0, 1, 0, 0, 0})
	f.Add([]byte{gmTagOutput, 0, 255, 255})
	f.Fuzz(func(t *testing.T, fields []byte) {
		if err := replyError(fields); err != nil && err.Error() == "" {
			t.Errorf("%x: an error without a word", fields)
		}
	})
}
