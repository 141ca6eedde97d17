package coverage

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// api is what the CRI has.
type api struct {
	rpcs   []string        // Service.Method
	fields []string        // Message.field, each message once
	asked  map[string]bool // of fields: it can be part of a request
}

// readAPI walks the descriptors from the request and the response of each RPC.
func readAPI() (api, error) {
	desc, err := protoregistry.GlobalFiles.FindDescriptorByName((&runtimeapi.VersionRequest{}).ProtoReflect().Descriptor().FullName())
	if err != nil {
		return api{}, err
	}
	var rpcs []string
	asked, told := make(map[string]bool), make(map[string]bool)
	services := desc.ParentFile().Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			rpcs = append(rpcs, string(services.Get(i).Name()+"."+methods.Get(j).Name()))
			walk(methods.Get(j).Input(), asked, map[protoreflect.FullName]bool{})
			walk(methods.Get(j).Output(), told, map[protoreflect.FullName]bool{})
		}
	}
	maps.Copy(told, asked)
	slices.Sort(rpcs)
	return api{rpcs: rpcs, fields: slices.Sorted(maps.Keys(told)), asked: asked}, nil
}

// walk adds the fields of a message, and of the messages in it.
func walk(m protoreflect.MessageDescriptor, fields map[string]bool, seen map[protoreflect.FullName]bool) {
	if seen[m.FullName()] {
		return
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		fields[string(m.Name()+"."+f.Name())] = true
		if f.IsMap() {
			f = f.MapValue()
		}
		if f.Message() != nil {
			walk(f.Message(), fields, seen)
		}
	}
}
