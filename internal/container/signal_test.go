package container

import (
	"testing"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestStopSignal(t *testing.T) {
	for _, tc := range []struct {
		asked runtimeapi.Signal
		image string
		want  unix.Signal
		bad   bool
	}{
		{want: unix.SIGTERM},
		{image: "SIGQUIT", want: unix.SIGQUIT},
		{image: "quit", want: unix.SIGQUIT},
		{image: "9", want: unix.SIGKILL},
		{image: "SIGRTMIN+3", want: 37},
		{image: "RTMAX-1", want: 63},
		{image: "SIGRTMIN+31", bad: true},
		{image: "SIGRTMIN+x", bad: true},
		{image: "0", bad: true},
		{image: "65", bad: true},
		{image: "SIGNOPE", bad: true},
		{asked: runtimeapi.Signal_SIGNAL_SIGUSR1, image: "SIGQUIT", want: unix.SIGUSR1},
		{asked: runtimeapi.Signal_SIGNAL_SIGRTMINPLUS15, want: 49},
		{asked: runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS14, want: 50},
		{asked: runtimeapi.Signal_SIGNAL_SIGCLD, want: unix.SIGCHLD},
	} {
		img := &imgspec.Image{Config: imgspec.ImageConfig{StopSignal: tc.image}}
		got, err := stopSignal(tc.asked, img)
		if (err != nil) != tc.bad || (!tc.bad && got != tc.want) {
			t.Errorf("stopSignal(%v, %q) = %v, %v; want %v (bad: %v)", tc.asked, tc.image, got, err, tc.want, tc.bad)
		}
	}
}

func TestEverySignalOfTheCRIIsKnown(t *testing.T) {
	for n, name := range runtimeapi.Signal_name {
		if n == 0 {
			continue
		}
		sig, err := stopSignal(runtimeapi.Signal(n), &imgspec.Image{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back := (&Record{StopSig: sig}).StopSignal()
		if s, _ := signalNamed(criSignalName(back)); s != sig {
			t.Errorf("%s is reported as %s", name, back)
		}
	}
}
