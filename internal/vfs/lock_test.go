package vfs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/vfs"
)

func TestLockWaitsUntilItsContextEnds(t *testing.T) {
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

func TestLockTriesOnceWhenItsContextHasEnded(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, d.Lock(ctx))
	if err := open(t, path).Lock(ctx); !errors.Is(err, vfs.ErrLocked) || !errors.Is(err, context.Canceled) {
		t.Errorf("Lock = %v, want ErrLocked and context.Canceled", err)
	}
}

func TestLockTwice(t *testing.T) {
	t.Parallel()
	d, _ := spool(t)
	check(t, d.Lock(t.Context()))
	if err := d.Lock(t.Context()); err == nil || errors.Is(err, vfs.ErrLocked) {
		t.Errorf("second Lock = %v, want an error of its own", err)
	}
}

func TestTheLockFileStays(t *testing.T) {
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

func TestTheLockEndsWithItsProcess(t *testing.T) {
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

func TestAChildDoesNotHoldTheLock(t *testing.T) {
	t.Parallel()
	d, path := spool(t)
	holder := startChild(t, "hold-with-child "+path)
	holder.says(t, "locked")
	check(t, holder.Process.Kill())
	check(t, d.Lock(t.Context()))
	must(holder.in.Write([]byte("are you there?\n")))(t)
	holder.says(t, "are you there?")
}
