package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/spf13/pflag"

	"github.com/gantry-cri/gantry/internal/config"
	"github.com/gantry-cri/gantry/internal/server"
)

// recorder stands for an OCI runtime: it writes down what it is asked, and a
// container is a process that sleeps.
const recorder = `#!/bin/sh
echo "$*" >>"$0.asked"
root=/nowhere id= pidfile=
for word; do
	case $last in --root) root=$word ;; --pid-file) pidfile=$word ;; esac
	last=$word id=$word
done
case " $* " in
*" --version "*) echo "crun version 1.8.1" ;;
*" create "*)
	sleep 1000 </dev/null >/dev/null 2>&1 &
	mkdir -p "$root/$id"; echo $! >"$root/$id/pid"; echo $! >"$pidfile" ;;
*" state "*) echo "{\"id\":\"$id\",\"pid\":$(cat "$root/$id/pid"),\"status\":\"running\"}" ;;
*" delete "*) kill -9 $(cat "$root/$id/pid") 2>/dev/null; rm -rf "$root/$id"; exit 0 ;;
*" exec "*) exit 1 ;;
esac
`

// bed is the daemon's parts in this process, on directories of its own.
type bed struct {
	dir      string
	daemon   *daemon
	flags    *config.Flags
	services map[string]*grpc.ServiceDesc
	server   *server.Server
	log      *slog.Logger
}

func newBed(t testing.TB) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "gantry-fuzz-")
	if err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(dir, "recorder")
	toml := fmt.Sprintf("root = %q\nrun_root = %q\nlisten = %q\ncni_conf_dir = %q\nregistries_conf = %q\npolicy = %q\nruntime_timeout = \"5s\"\ncgroup_parent = %q\ndefault_runtime = \"recorder\"\n[runtimes.recorder]\npath = %q\n",
		dir+"/root", dir+"/run", dir+"/sock", dir+"/net.d", dir+"/registries.conf", dir+"/policy.json", "/gantry-fuzz-"+filepath.Base(dir), runtime)
	for name, text := range map[string]string{
		"recorder": recorder, "gantry.toml": toml, "registries.conf": "", "policy.json": `{"default":[{"type":"reject"}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	set := pflag.NewFlagSet("gantryd", pflag.ContinueOnError)
	flags := config.BindFlags(set)
	if err := set.Parse([]string{"--config", filepath.Join(dir, "gantry.toml")}); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(flags)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	lock, err := lockInstance(cfg.RunRoot, cfg.Root)
	if err != nil {
		t.Fatal(err)
	}
	d, err := assemble(context.Background(), cfg, log, new(slog.LevelVar))
	if err == nil {
		err = d.recover(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.pods.EndEvents()
		d.close()
		lock.release()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &bed{dir: dir, daemon: d, flags: flags, server: d.server, log: log, services: map[string]*grpc.ServiceDesc{
		"runtime.v1.RuntimeService": &runtimeapi.RuntimeService_ServiceDesc,
		"runtime.v1.ImageService":   &runtimeapi.ImageService_ServiceDesc,
	}}
}

// method is a unary call of the CRI.
type method struct {
	service, name string
	desc          grpc.MethodDesc
	request       proto.Message // a valid one
}

func (b *bed) methods() []method {
	var out []method
	for name, service := range b.services {
		for _, desc := range service.Methods {
			m := method{service: name, name: desc.MethodName, desc: desc}
			// The handler hands the decoder an empty request of its type.
			_, _ = desc.Handler(b.server, context.Background(), func(v any) error {
				m.request = v.(proto.Message)
				return context.Canceled
			}, nil)
			fill(m.request.ProtoReflect(), 0, b.dir)
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b method) int { return strings.Compare(a.service+a.name, b.service+b.name) })
	return out
}

// call makes a call as the gRPC server would, with the server's interceptor.
func (b *bed) call(ctx context.Context, m method, body []byte) error {
	_, err := m.desc.Handler(b.server, ctx, func(v any) error {
		if err := proto.Unmarshal(body, v.(proto.Message)); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		confine(v.(proto.Message).ProtoReflect(), b.dir)
		return nil
	}, server.Unary(b.log, func(string) func(string) { return func(string) {} }))
	return err
}

// fill sets every field of a message to something plausible.
func fill(m protoreflect.Message, depth int, dir string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap() || depth > 5:
		case f.IsList() && f.Message() != nil:
			fill(m.Mutable(f).List().AppendMutable().Message(), depth+1, dir)
		case f.IsList() && f.Kind() == protoreflect.StringKind:
			m.Mutable(f).List().Append(protoreflect.ValueOfString("word"))
		case f.IsList():
		case f.Message() != nil:
			if name := string(f.Name()); name != "windows" {
				fill(m.Mutable(f).Message(), depth+1, dir)
			}
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(plausible(string(f.Name()))))
		case f.Kind() == protoreflect.Int64Kind:
			m.Set(f, protoreflect.ValueOfInt64(1))
		case f.Kind() == protoreflect.Uint32Kind:
			m.Set(f, protoreflect.ValueOfUint32(1))
		}
	}
}

func plausible(field string) string {
	switch {
	case strings.HasSuffix(field, "_id") || field == "id":
		return strings.Repeat("0123456789abcdef", 4)
	case strings.HasSuffix(field, "_path"), strings.HasSuffix(field, "_directory"), field == "cgroup_parent":
		return "/made/up"
	case strings.HasSuffix(field, "_handler"):
		return "recorder"
	case field == "image":
		return "localhost:1/made/up:latest"
	}
	return "word"
}

// confine puts every absolute path that the daemon may make below dir, where
// nothing else is; and no pod into the node's own cgroups.
func confine(m protoreflect.Message, dir string) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch name := string(f.Name()); {
		case f.Message() != nil && f.IsList():
			for i := range v.List().Len() {
				confine(v.List().Get(i).Message(), dir)
			}
		case f.Message() != nil && !f.IsMap():
			confine(v.Message(), dir)
		case name == "cgroup_parent":
			m.Clear(f)
		case name == "log_directory" || name == "host_path" || name == "localhost_ref" || name == "localhost_profile":
			if !f.IsList() && filepath.IsAbs(v.String()) {
				m.Set(f, protoreflect.ValueOfString(filepath.Join(dir, "node", filepath.Clean(v.String()))))
			}
		}
		return true
	})
}

// callLimit is more than any call takes that refuses or is refused.
const callLimit = 30 * time.Second

// FuzzRequests mutates valid requests of every type. Whatever comes, the server
// answers, soon, with a code that says whose fault it is; nothing panics; the
// runtime is told of nothing outside the run root; and nothing is left.
func FuzzRequests(f *testing.F) {
	var once sync.Once
	var b *bed
	var methods []method
	prepare := func() {
		once.Do(func() {
			b = newBed(f)
			methods = b.methods()
		})
	}
	prepare()
	for i, m := range methods {
		body, err := proto.Marshal(m.request)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), body)
		f.Add(uint8(i), []byte{})
	}
	host, err := proto.Marshal(&runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "n", Namespace: "ns", Uid: "u"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(slices.IndexFunc(methods, func(m method) bool { return m.name == "RunPodSandbox" })), host)
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		m := methods[int(which)%len(methods)]
		ctx, cancel := context.WithTimeout(context.Background(), callLimit)
		defer cancel()
		start := time.Now()
		err := b.call(ctx, m, body)
		if took := time.Since(start); took >= callLimit {
			t.Errorf("%s took %s: %v", m.name, took, err)
		}
		// The kubelet wants its own names for why a pull failed, and no code with them.
		message := status.Convert(err).Message()
		named := strings.HasPrefix(message, "RegistryUnavailable: ") || strings.HasPrefix(message, "SignatureValidationFailed: ")
		if strings.Contains(message, "internal error: ") || status.Code(err) == codes.Unknown && !named {
			t.Errorf("%s: %v", m.name, err)
		}
		b.clear(t)
	})
}

// clear removes the pods that a request has made, and looks at what the runtime
// was asked and at what is left.
func (b *bed) clear(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	list, err := b.server.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if _, err := b.server.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.Id}); err != nil {
			t.Errorf("remove what a request has made: %v", err)
		}
	}
	asked, err := os.ReadFile(filepath.Join(b.dir, "recorder.asked"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(asked)) {
		_, after, found := strings.Cut(line, "--bundle ")
		if found && !strings.HasPrefix(after, b.dir+"/run/pods/") {
			t.Errorf("the runtime was asked for a bundle elsewhere: %s", line)
		}
	}
	left, err := filepath.Glob(filepath.Join(b.dir, "run/pods/*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := os.RemoveAll(filepath.Join(b.dir, "node")); err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}
