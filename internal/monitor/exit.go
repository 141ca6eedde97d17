package monitor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"time"

	"github.com/gantry-cri/gantry/internal/statefile"
)

// Exit says how a container ended.
type Exit struct {
	Code       int  // 128 + Signal when a signal ended it
	Signal     int  // 0 when it ended by itself
	OOMKilled  bool // the kernel killed a process of it for lack of memory
	FinishedAt time.Time
	LogLost    uint64 // bytes of output that the log's disk could not take
}

// exitRecord is the file that monitor/record.c writes.
type exitRecord struct {
	Version   int    `json:"version"`
	Finished  int64  `json:"finished"`
	ExitCode  int    `json:"exit_code"`
	Signal    int    `json:"signal"`
	OOMKilled bool   `json:"oom_killed"`
	LogLost   uint64 `json:"log_lost"`
	Sum       uint32 `json:"sum"`
}

const (
	exitRecordVersion = 1
	exitRecordMax     = 4096

	// A record is overwritten in place by one small write; a reader that comes
	// in the middle of it sees a wrong sum and looks again.
	exitReadTries = 5
	exitReadPause = 2 * time.Millisecond
)

// ReadExit reads the exit record at path. false means that the container has
// not ended, as far as is recorded; so does a record that does not exist. The
// error wraps statefile.ErrDamaged when the record can't be understood.
func ReadExit(path string) (Exit, bool, error) {
	var err error
	for range exitReadTries {
		var body []byte
		body, err = os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return Exit{}, false, nil
		}
		if err != nil {
			return Exit{}, false, err
		}
		var r exitRecord
		if r, err = parseExit(body); err == nil {
			return r.exit(), r.Finished != 0, nil
		}
		time.Sleep(exitReadPause)
	}
	return Exit{}, false, fmt.Errorf("%s: %w", path, err)
}

func parseExit(body []byte) (exitRecord, error) {
	var r exitRecord
	if len(body) > exitRecordMax {
		return r, fmt.Errorf("%w: %d bytes", statefile.ErrDamaged, len(body))
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("%w: %v", statefile.ErrDamaged, err)
	}
	if r.Version != exitRecordVersion {
		return r, fmt.Errorf("%w: version %d, want %d", statefile.ErrDamaged, r.Version, exitRecordVersion)
	}
	covered, _, _ := bytes.Cut(body, []byte(`,"sum":`))
	sum := fnv.New32a()
	sum.Write(covered)
	if sum.Sum32() != r.Sum {
		return r, fmt.Errorf("%w: wrong checksum", statefile.ErrDamaged)
	}
	return r, nil
}

func (r exitRecord) exit() Exit {
	if r.Finished == 0 {
		return Exit{}
	}
	return Exit{
		Code: r.ExitCode, Signal: r.Signal, OOMKilled: r.OOMKilled,
		FinishedAt: time.Unix(0, r.Finished), LogLost: r.LogLost,
	}
}
