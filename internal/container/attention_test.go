package container

import (
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignalMask(t *testing.T) {
	const status = "Name:\tx\nSigQ:\t0/1\nSigPnd:\t0000000000000001\nSigBlk:\t0000000000000200\nSigCgt:\t0000000000004002\n"
	a := attention{noticed: signalMask(status, "SigCgt") | signalMask(status, "SigBlk")}
	for sig, want := range map[unix.Signal]bool{
		unix.SIGHUP: false, unix.SIGINT: true, unix.SIGUSR1: true, unix.SIGTERM: true, unix.SIGKILL: false, unix.Signal(sigRTMax): false,
	} {
		if a.gets(sig) != want {
			t.Errorf("signal %d: gets it is %v", sig, !want)
		}
	}
	if signalMask("Name:\tx\n", "SigCgt") != 0 || signalMask("x\nSigCgt:\tzz\n", "SigCgt") != 0 {
		t.Error("a mask where there is none")
	}
}

func TestAttentionOf(t *testing.T) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGTERM)
	defer signal.Stop(c)
	if a := attentionOf(os.Getpid()); !a.gets(unix.SIGTERM) || a.program == "" {
		t.Errorf("this process: %+v", a)
	}
	if a := attentionOf(-1); a != (attention{}) {
		t.Errorf("no process: %+v", a)
	}
}
