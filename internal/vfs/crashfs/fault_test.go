package crashfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/internal/vfs/crashfs"
)

// workload runs each operation once, and continues after errors.
func workload(d vfs.Dir) (errs []error) {
	failed := func(err error) bool {
		if err != nil {
			errs = append(errs, err)
		}
		return err != nil
	}
	failed(d.Lock(context.Background()))
	if f, err := d.Create("a"); !failed(err) {
		failed(f.Reserve(1500))
		_, err := f.Append(bytes.Repeat([]byte("x"), 1000))
		failed(err)
		failed(f.Sync())
		failed(f.Close())
	}
	failed(d.Sync())
	if f, err := d.Open("a"); !failed(err) {
		_, err := f.ReadAt(make([]byte, 1), 0)
		failed(err)
		_, err = f.Size()
		failed(err)
		failed(f.Close())
	}
	if sub, err := d.Sub("corrupt"); !failed(err) {
		failed(sub.Close())
	}
	_, err := d.List()
	failed(err)
	failed(d.Remove("a"))
	failed(d.Close())
	return errs
}

// Given one run of all operations, when each fails in each way, then the run sees that
// error first and leaves no handle open.
func TestFailAt_EveryOperationAndKind(t *testing.T) {
	t.Parallel()
	whole := crashfs.New(1)
	if errs := workload(whole.Dir()); errs != nil {
		t.Fatal(errs)
	}
	errnos := map[crashfs.Kind]error{
		crashfs.EIO: syscall.EIO, crashfs.ENOSPC: syscall.ENOSPC, crashfs.EINTR: syscall.EINTR,
		crashfs.EROFS: syscall.EROFS, crashfs.EMFILE: syscall.EMFILE,
		crashfs.Short: syscall.ENOSPC, crashfs.Late: syscall.EIO, crashfs.Stop: crashfs.ErrStopped,
	}
	for _, kind := range append(crashfs.Kinds(), crashfs.Stop) {
		for k := range whole.Ops() {
			disk := crashfs.New(1)
			disk.FailAt(k, kind)
			errs := workload(disk.Dir())
			if !disk.Tripped() || len(errs) == 0 || !errors.Is(errs[0], errnos[kind]) {
				t.Errorf("%v at operation %d: tripped %t, errors %v", kind, k, disk.Tripped(), errs)
			}
			if open := disk.Handles(); len(open) != 0 {
				t.Errorf("%v at operation %d: open afterwards: %q", kind, k, open)
			}
			if kind == crashfs.Stop && disk.Ops() != k+1 {
				t.Errorf("stopped at operation %d: %d operations", k, disk.Ops())
			}
		}
	}
	after := crashfs.New(1)
	after.FailAt(whole.Ops(), crashfs.EIO)
	if errs := workload(after.Dir()); errs != nil || after.Tripped() {
		t.Errorf("a fault after the last operation: %v", errs)
	}
}

// Given an Append or Reserve that fails, when the file is read, then it has the part
// that the kind of failure allows.
func TestFailAt_PartialWrites(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		call, all string
		write     func(*crashfs.FS, vfs.File) (int, error)
	}{
		{"append", "abcd", func(_ *crashfs.FS, f vfs.File) (int, error) { return f.Append([]byte("abcd")) }},
		{"reserve", "\x00\x00\x00\x00", func(disk *crashfs.FS, f vfs.File) (int, error) {
			err := f.Reserve(4)
			got, _ := disk.ReadFile("a")
			return len(got), err
		}},
	} {
		lengths := make(map[crashfs.Kind]map[int]bool)
		for seed := range uint64(200) {
			for _, kind := range []crashfs.Kind{crashfs.EIO, crashfs.Short, crashfs.Late, crashfs.Stop} {
				disk := crashfs.New(seed)
				f := create(t, disk.Dir(), "a", nil)
				disk.FailAt(disk.Ops(), kind)
				n, err := tt.write(disk, f)
				got, _ := disk.ReadFile("a")
				if err == nil || string(got) != tt.all[:n] {
					t.Fatalf("%v: %s = %d, %v; the file is %q", kind, tt.call, n, err, got)
				}
				if lengths[kind] == nil {
					lengths[kind] = make(map[int]bool)
				}
				lengths[kind][n] = true
			}
		}
		want := "map[EIO:map[0:true] Short:map[0:true 1:true 2:true 3:true] Late:map[4:true] Stop:map[0:true 1:true 2:true 3:true]]"
		if got := fmt.Sprint(lengths); got != want {
			t.Errorf("lengths written by %s\n got %s\nwant %s", tt.call, got, want)
		}
	}
}

// Given an injected function, when operations run, then it sees each one and its error
// is returned.
func TestInject_SeesAndFailsOperations(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	var calls []crashfs.Call
	disk.Inject(func(op crashfs.Op) error {
		if op.N != len(calls) {
			t.Errorf("operation %d after %d others", op.N, len(calls))
		}
		calls = append(calls, op.Call)
		if op.Call == crashfs.CallAppend {
			return crashfs.Partly(op.Len/2, syscall.EDQUOT)
		}
		return nil
	})
	errs := workload(disk.Dir())
	if len(errs) != 1 || !errors.Is(errs[0], syscall.EDQUOT) {
		t.Errorf("errors: %v, want EDQUOT", errs)
	}
	want := []crashfs.Call{"lock", "create", "reserve", "append", "sync", "close", "syncdir", "open", "read", "stat", "close", "mkdir", "close", "list", "remove", "close"}
	if !slices.Equal(calls, want) {
		t.Errorf("calls\n got %q\nwant %q", calls, want)
	}
}

// Given a killed process, when it calls any method, then the method fails and the next
// process sees no change.
func TestKill_LaterCallsFail(t *testing.T) {
	t.Parallel()
	disk := crashfs.New(1)
	d := disk.Dir()
	f := create(t, d, "a", []byte("1"))
	next := disk.Kill()
	_, err := f.Append([]byte("2"))
	_, err2 := d.Create("b")
	for _, err := range []error{err, err2, f.Sync(), d.Sync(), d.Remove("a"), f.Close(), d.Close(), d.Lock(t.Context())} {
		if !errors.Is(err, crashfs.ErrStopped) {
			t.Errorf("after Kill: %v, want ErrStopped", err)
		}
	}
	if got := have("a", "b")(next); got != "a" {
		t.Errorf("the next process sees %q", got)
	}
}

// Given four goroutines that append and sync, when the power is cut, then all bytes
// known to be synced are on the disk.
func TestCrash_ConcurrentWriters(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		disk := crashfs.New(seed)
		d := disk.Dir()
		var wg sync.WaitGroup
		var synced [4]atomic.Int64 // bytes that the process knows to be on disk
		for i := range synced {
			wg.Go(func() {
				f, err := d.Create(fmt.Sprint(i))
				if err == nil {
					err = d.Sync()
				}
				for n := int64(0); err == nil; n += 100 {
					synced[i].Store(n)
					if _, err = f.Append(bytes.Repeat([]byte{1}, 100)); err == nil {
						err = f.Sync()
					}
				}
				if !errors.Is(err, crashfs.ErrStopped) {
					t.Error(err)
				}
			})
		}
		for disk.Ops() < 200 {
			runtime.Gosched()
		}
		var known [4]int64
		for i := range synced {
			known[i] = synced[i].Load()
		}
		next := disk.Crash(seeded(seed))
		wg.Wait()
		for i, n := range known {
			if got, _ := next.ReadFile(fmt.Sprint(i)); int64(bytes.Count(got, []byte{1})) < n {
				t.Errorf("seed %d: file %d has %d bytes, want at least %d", seed, i, len(got), n)
			}
		}
	}
}

// Given a held lock, when others wait for it, then they get a deadline error, the lock
// after Close, or ErrStopped after a kill.
func TestLock_HeldByAnotherHandle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := crashfs.New(1)
		first, second, third := disk.Dir(), disk.Dir(), disk.Dir()
		check(t, first.Lock(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := second.Lock(ctx); !errors.Is(err, vfs.ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock = %v, want ErrLocked and the deadline", err)
		}

		locked := make(chan error, 1)
		go func() { locked <- second.Lock(t.Context()) }()
		synctest.Wait()
		check(t, first.Close(), <-locked)

		go func() { locked <- third.Lock(t.Context()) }()
		synctest.Wait()
		next := disk.Kill()
		if err := <-locked; !errors.Is(err, crashfs.ErrStopped) {
			t.Errorf("Lock of a killed process = %v, want ErrStopped", err)
		}
		check(t, next.Dir().Lock(t.Context()))
		if got := have(vfs.LockName)(next); got != vfs.LockName {
			t.Errorf("names: %q, want the lock file", got)
		}
	})
}

// Given an injected function that sleeps, when a file is synced, then Sync takes that
// long.
func TestInject_SlowDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := crashfs.New(1)
		disk.Inject(func(op crashfs.Op) error {
			if op.Call == crashfs.CallSync {
				time.Sleep(5 * time.Second)
			}
			return nil
		})
		f := create(t, disk.Dir(), "a", []byte("1"))
		begin := time.Now()
		check(t, f.Sync())
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("Sync took %v", took)
		}
	})
}
