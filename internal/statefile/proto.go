package statefile

import (
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Proto holds a protobuf message inside a record, in protobuf's own JSON form.
// Fields that a newer Gantry wrote and this one does not know are dropped on
// reading, so that a downgrade can read the records of an upgrade.
type Proto[M proto.Message] struct {
	Message M
}

// Of wraps m for a record.
func Of[M proto.Message](m M) Proto[M] { return Proto[M]{m} }

// MarshalJSON implements json.Marshaler.
func (p Proto[M]) MarshalJSON() ([]byte, error) {
	return protojson.Marshal(p.Message)
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Proto[M]) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	var zero M
	m := zero.ProtoReflect().New().Interface().(M)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
		return err
	}
	p.Message = m
	return nil
}
