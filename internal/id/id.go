// Package id holds the names Gantry gives to pods and containers.
package id

import (
	"crypto/rand"
	"encoding/hex"
)

// Pod names one pod sandbox: 64 lowercase hexadecimal digits, random, never reused.
type Pod string

// Container names one container: 64 lowercase hexadecimal digits, random, never reused.
// A pod's pause container has the pod's own digits.
type Container string

// Len is the length of every id, in bytes.
const Len = 64

// NewPod returns a fresh pod id.
func NewPod() Pod { return Pod(random()) }

// NewContainer returns a fresh container id.
func NewContainer() Container { return Container(random()) }

// Valid reports whether s has the form of an id. Everything that becomes a
// path element under the run root is checked with it first.
func Valid(s string) bool {
	if len(s) != Len {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func random() string {
	var b [Len / 2]byte
	rand.Read(b[:]) // crypto/rand.Read never fails: it aborts the program instead.
	return hex.EncodeToString(b[:])
}
