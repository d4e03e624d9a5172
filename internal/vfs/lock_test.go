package vfs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/vfs"
)

// Given a held lock, when another Dir locks with a deadline, then it waits until then,
// fails, and a later call gets the lock after Close.
func TestLock_ContextEnds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spool")
	synctest.Test(t, func(t *testing.T) {
		first, second := open(t, path), open(t, path)
		check(t, first.Lock(t.Context()))

		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("shutting down"))
		defer cancel()
		begin := time.Now()
		err := second.Lock(ctx)
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("Lock waited %v, want a minute", took)
		}
		if !errors.Is(err, vfs.ErrLocked) || !errors.Is(err, context.Cause(ctx)) {
			t.Errorf("Lock = %v, want ErrLocked and the cause", err)
		}

		locked := make(chan error, 1)
		go func() { locked <- second.Lock(t.Context()) }()
		synctest.Wait()
		check(t, first.Close())
		begin = time.Now()
		if err := <-locked; err != nil || time.Since(begin) > time.Second {
			t.Errorf("after Close Lock = %v in %v", err, time.Since(begin))
		}
	})
}

// Given an ended context, when Lock is called, then it still tries once.
func TestLock_ContextAlreadyEnded(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, d.Lock(ctx))
	if err := open(t, path).Lock(ctx); !errors.Is(err, vfs.ErrLocked) || !errors.Is(err, context.Canceled) {
		t.Errorf("Lock = %v, want ErrLocked and context.Canceled", err)
	}
}

// Given a Dir that has the lock, when it locks again, then it gets an error that is
// not ErrLocked.
func TestLock_Twice(t *testing.T) {
	t.Parallel()
	d, _ := spool(t)
	check(t, d.Lock(t.Context()))
	if err := d.Lock(t.Context()); err == nil || errors.Is(err, vfs.ErrLocked) {
		t.Errorf("second Lock = %v, want an error of its own", err)
	}
}

// Given a lock that was released, when it is locked again, then it is the same file.
func TestLock_FileStays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spool")
	var first os.FileInfo
	for range 3 {
		d := open(t, path)
		check(t, d.Lock(t.Context()), d.Close())
		info := must(os.Lstat(filepath.Join(path, vfs.LockName)))(t)
		if first == nil {
			first = info
		}
		if !os.SameFile(info, first) || info.Size() != 0 {
			t.Errorf("the lock file is another one, or has %d bytes", info.Size())
		}
	}
}

// Given a holder in another process, when that process is killed, then Lock gets the
// lock.
func TestLock_HolderKilled(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	holder := startChild(t, "hold "+path)
	holder.says(t, "locked")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Lock(ended); !errors.Is(err, vfs.ErrLocked) {
		t.Fatalf("Lock = %v, want ErrLocked", err)
	}
	locked := make(chan error, 1)
	go func() { locked <- d.Lock(t.Context()) }()
	check(t, holder.Process.Kill())
	check(t, <-locked)
}

// Given a holder with a child process, when the holder is killed and the child lives
// on, then Lock gets the lock.
func TestLock_ChildOfHolderLivesOn(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	holder := startChild(t, "hold-with-child "+path)
	holder.says(t, "locked")
	check(t, holder.Process.Kill())
	check(t, d.Lock(t.Context()))
	must(holder.in.Write([]byte("are you there?\n")))(t)
	holder.says(t, "are you there?")
}

// Given a holder in this process, in another process or on another host, when Lock
// fails, then the error describes that holder.
func TestLock_NamesHolder(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	locked := func(t *testing.T, d vfs.Dir, path, who string) {
		t.Helper()
		var locked *vfs.LockedError
		err := d.Lock(ended)
		if !errors.As(err, &locked) || locked.Path != path || locked.Err != context.Canceled {
			t.Fatalf("Lock = %v, want a LockedError of %s", err, path)
		}
		if got := locked.Holder.String(); got != who {
			t.Errorf("the holder is %q, want %q", got, who)
		}
	}
	t.Run("this process", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "spool")
		check(t, open(t, path).Lock(t.Context()))
		locked(t, open(t, path), path, fmt.Sprintf("another sink of this process (pid %d)", os.Getpid()))
	})
	t.Run("another process", func(t *testing.T) {
		t.Parallel()
		d, path := spool(t)
		holder := startChild(t, "hold "+path)
		holder.says(t, "locked")
		locked(t, d, path, fmt.Sprintf("another process (pid %d)", holder.Process.Pid))
	})
	for who, record := range map[string]string{
		"another process": "",
		"a process on host checkout-1 (pid 7 there)": `{"pid":7,"host":"checkout-1","pid_namespace":"pid:[1]","since":"2026-01-02T03:04:05Z"}`,
	} {
		t.Run("record "+record, func(t *testing.T) {
			t.Parallel()
			d, path := spool(t)
			check(t, d.Lock(t.Context()))
			check(t, os.WriteFile(filepath.Join(path, vfs.LockName), []byte("\n"+record), 0o600))
			locked(t, open(t, path), path, who)
		})
	}
}

// Given the record of a killed holder, when another process holds the lock and has
// not written its record, then Lock does not report the killed one.
func TestLock_HolderIsDead(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	dead := startChild(t, "hold "+path)
	dead.says(t, "locked")
	check(t, dead.Process.Kill())
	dead.Wait()
	name := filepath.Join(path, vfs.LockName)
	record := must(os.ReadFile(name))(t)
	if len(record) == 0 {
		t.Fatal("the killed process left no record")
	}
	check(t, d.Lock(t.Context()))
	if now := must(os.ReadFile(name))(t); string(now) == string(record) {
		t.Error("the next holder has not written its own record")
	}
	check(t, os.WriteFile(name, record, 0o600))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var locked *vfs.LockedError
	if err := open(t, path).Lock(ended); !errors.As(err, &locked) || locked.Holder != (vfs.Holder{}) {
		t.Errorf("Lock = %v, want an unknown holder", err)
	}
}
