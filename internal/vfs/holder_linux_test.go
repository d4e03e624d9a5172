package vfs_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// Given a holder in another container of this host, which has the host's name,
// then its process id is not taken for one of ours.
func TestLock_HolderIsInAnotherContainer(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	holder := newChild(t, "hold "+path)
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := holder.Start(); err != nil {
		t.Skip("SKIP: it may not make a pid namespace here (run the tests as root): ", err)
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
