package vfs_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// Given a holder in another container with the host's name, when this process
// cannot get the lock, then the error does not take its pid for one of this host.
func TestLock_HolderIsInAnotherContainer(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	holder := newChild(t, "hold "+path)
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := holder.Start(); err != nil {
		t.Skip("SKIP: this process may not make a PID namespace (run the tests as root): ", err)
	}
	holder.says(t, "locked")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var locked *vfs.LockedError
	if err := d.Lock(ended); !errors.As(err, &locked) {
		t.Fatalf("Lock = %v, want a LockedError", err)
	}
	if h := locked.Holder; h.PID != 1 || !strings.HasPrefix(h.String(), "a process of another container on this host (pid 1 ") {
		t.Errorf("the holder is %v, want pid 1 of another container", h)
	}
}
