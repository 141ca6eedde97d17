package monitor

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/gantry-cri/gantry/internal/id"
)

// LogState says whether a container's log takes what is written to it.
type LogState struct {
	// Err is why it can't be written; nil when it can again. The container runs
	// on meanwhile, and its output is lost.
	Err  error
	Lost uint64 // bytes of output, so far
}

func parseLog(fields []byte) (ctr id.Container, s LogState) {
	for f := range fieldsOf(fields) {
		switch f.tag {
		case gmTagContainer:
			ctr = id.Container(f.text())
		case gmTagLogLost:
			s.Lost = f.number()
		case gmTagErrno:
			s.Err = unix.Errno(f.number())
		}
	}
	return ctr, s
}

// JournalField is one field of a journal's message. The name has capital
// letters, digits and underscores; the value may hold any bytes.
type JournalField struct{ Name, Value string }

// encodeFields writes fields in the form in which values may hold any bytes:
// https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
func encodeFields(fields []JournalField) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		b.WriteString(f.Name)
		b.WriteByte('\n')
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(f.Value))))
		b.WriteString(f.Value)
		b.WriteByte('\n')
	}
	return b.Bytes()
}
