package container

import (
	"strconv"
	"strings"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/errkind"
)

// The range of the real-time signals that programs can use on Linux with
// glibc, which names them relative to these.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// stopSignal is the signal that asks a container to end: the request's, else
// the image's, else SIGTERM.
func stopSignal(asked runtimeapi.Signal, img *imgspec.Image) (unix.Signal, error) {
	if asked != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		sig, ok := signalNamed(criSignalName(asked))
		if !ok {
			return 0, errkind.Errorf(errkind.Invalid, "stop signal %s is not known", asked)
		}
		return sig, nil
	}
	if img.Config.StopSignal == "" {
		return unix.SIGTERM, nil
	}
	sig, ok := signalNamed(img.Config.StopSignal)
	if !ok {
		return 0, errkind.Errorf(errkind.Invalid, "the image's stop signal %q is not known", img.Config.StopSignal)
	}
	return sig, nil
}

// criSignalName turns CRI's SIGNAL_SIGRTMINPLUS3 into the usual SIGRTMIN+3.
func criSignalName(s runtimeapi.Signal) string {
	name := strings.TrimPrefix(s.String(), "SIGNAL_")
	name = strings.Replace(name, "PLUS", "+", 1)
	return strings.Replace(name, "MINUS", "-", 1)
}

// signalNamed understands what image builders write: a number, or a name with
// or without SIG, real-time signals as SIGRTMIN+n and SIGRTMAX-n.
func signalNamed(name string) (unix.Signal, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return unix.Signal(n), n > 0 && n <= sigRTMax
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	switch name {
	case "SIGCLD":
		return unix.SIGCHLD, true
	case "SIGIOT":
		return unix.SIGABRT, true
	case "SIGPOLL":
		return unix.SIGIO, true
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		return realTime(sigRTMin, rest)
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMAX"); ok {
		return realTime(sigRTMax, rest)
	}
	sig := unix.SignalNum(name)
	return sig, sig != 0
}

func realTime(base int, offset string) (unix.Signal, bool) {
	n := 0
	if offset != "" {
		var err error
		if n, err = strconv.Atoi(offset); err != nil {
			return 0, false
		}
	}
	sig := base + n
	return unix.Signal(sig), sig >= sigRTMin && sig <= sigRTMax
}

// StopSignal is the container's stop signal in CRI's terms.
func (r *Record) StopSignal() runtimeapi.Signal {
	for n := range runtimeapi.Signal_name {
		s := runtimeapi.Signal(n)
		if s == runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT || aliased[s] {
			continue
		}
		if sig, ok := signalNamed(criSignalName(s)); ok && sig == r.StopSig {
			return s
		}
	}
	return runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT
}

// aliased are the CRI signals that are second names of others.
var aliased = map[runtimeapi.Signal]bool{
	runtimeapi.Signal_SIGNAL_SIGCLD:  true,
	runtimeapi.Signal_SIGNAL_SIGIOT:  true,
	runtimeapi.Signal_SIGNAL_SIGPOLL: true,
}
