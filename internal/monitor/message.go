package monitor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// message is one protocol message under construction or as received.
type message struct {
	bytes []byte
	err   error // why it can't be sent
}

func newMessage(kind uint16, id uint64) *message {
	b := make([]byte, 0, 256)
	b = binary.LittleEndian.AppendUint16(b, gmVersion)
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return &message{bytes: binary.LittleEndian.AppendUint64(b, id)}
}

// setID fills in the id of a message that was built before it had one.
func (m *message) setID(id uint64) { binary.LittleEndian.PutUint64(m.bytes[8:], id) }

func (m *message) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *message) put(tag uint16, data []byte) {
	if len(data) > 0xffff {
		m.fail(errkind.Errorf(errkind.Invalid, "a field of %d bytes is too large for the monitor", len(data)))
		return
	}
	m.bytes = binary.LittleEndian.AppendUint16(m.bytes, tag)
	m.bytes = binary.LittleEndian.AppendUint16(m.bytes, uint16(len(data)))
	m.bytes = append(m.bytes, data...)
}

// putString adds a string, and nothing if it is empty: no field of the protocol
// distinguishes an empty string from an absent one.
func (m *message) putString(tag uint16, s string) {
	if s == "" {
		return
	}
	if strings.IndexByte(s, 0) >= 0 {
		m.fail(errkind.Errorf(errkind.Invalid, "%q holds a NUL byte", s))
		return
	}
	m.put(tag, append([]byte(s), 0))
}

func (m *message) putUint32(tag uint16, v uint32) {
	m.put(tag, binary.LittleEndian.AppendUint32(nil, v))
}

func (m *message) putUint64(tag uint16, v uint64) {
	m.put(tag, binary.LittleEndian.AppendUint64(nil, v))
}

// putNested adds a field that holds the fields which fill adds.
func (m *message) putNested(tag uint16, fill func(*message)) {
	var inner message
	fill(&inner)
	if inner.err != nil {
		m.fail(inner.err)
		return
	}
	m.put(tag, inner.bytes)
}

// encoded returns the finished message, or why it can't be sent.
func (m *message) encoded() ([]byte, error) {
	if m.err != nil {
		return nil, m.err
	}
	if len(m.bytes) > gmMaxMessage {
		return nil, errkind.Errorf(errkind.Invalid, "a request of %d bytes exceeds the monitor's limit of %d", len(m.bytes), gmMaxMessage)
	}
	return m.bytes, nil
}

var errMalformed = errors.New("malformed message from the monitor")

// parse splits a received message into its header and its fields.
func parse(b []byte) (kind uint16, id uint64, fields []byte, err error) {
	if len(b) < gmHeaderSize {
		return 0, 0, nil, fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	if v := binary.LittleEndian.Uint16(b); v != gmVersion {
		return 0, 0, nil, fmt.Errorf("%w: version %d", errMalformed, v)
	}
	return binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint64(b[8:]), b[gmHeaderSize:], nil
}

type field struct {
	tag  uint16
	data []byte
}

// fieldsOf yields the fields in b up to the first malformed one.
func fieldsOf(b []byte) iter.Seq[field] {
	return func(yield func(field) bool) {
		for len(b) >= gmFieldSize {
			tag, n := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
			if n > len(b)-gmFieldSize {
				return
			}
			if !yield(field{tag, b[gmFieldSize : gmFieldSize+n]}) {
				return
			}
			b = b[gmFieldSize+n:]
		}
	}
}

// number returns an integer field's value; 0 for one of another length.
func (f field) number() uint64 {
	switch len(f.data) {
	case 4:
		return uint64(binary.LittleEndian.Uint32(f.data))
	case 8:
		return binary.LittleEndian.Uint64(f.data)
	}
	return 0
}

// text returns a string field's value.
func (f field) text() string { return strings.TrimSuffix(string(f.data), "\x00") }
