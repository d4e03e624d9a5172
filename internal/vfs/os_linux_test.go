package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestNetworkFileSystemsAreRefused(t *testing.T) {
	t.Parallel()
	for magic, want := range map[uint32]error{
		0xef53: nil, 0x58465342: nil, 0x01021994: nil, 0x12345678: nil,
		0x6969: ErrNetwork, 0xff534d42: ErrNetwork, 0xfe534d42: ErrNetwork, 0x00c36400: ErrNetwork,
	} {
		system := byMagic(magic)
		if system.Name == "" || system.Network && system.Volatile {
			t.Errorf("%#x: %+v", magic, system)
		}
		err := checkFileSystem("/spool", system, Options{})
		if r := (*RefusedError)(nil); !errors.Is(err, want) || want != nil && !errors.As(err, &r) {
			t.Errorf("%#x (%s) = %v, want %v", magic, system.Name, err, want)
		}
		if err := checkFileSystem("/spool", system, Options{AllowNetwork: true}); err != nil {
			t.Errorf("%#x, allowed: %v", magic, err)
		}
	}
}

func TestSystemCallsAreRepeatedAfterASignal(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls := 0
	err = control(f, func(int) error {
		if calls++; calls < 3 {
			return syscall.EINTR
		}
		return syscall.EIO
	})
	if calls != 3 || err != syscall.EIO {
		t.Errorf("%d calls, %v; want 3 and EIO", calls, err)
	}
}

// TestALockFileThatWasDeleted is the race of a person who deletes the lock file
// just before we lock it, so that someone else can lock another one.
func TestALockFileThatWasDeleted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spool")
	opened, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	d := opened.(*dir)
	f, err := d.openLock()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(tryLock(f), d.stillLock(f)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(path, LockName)); err != nil {
		t.Fatal(err)
	}
	if err := d.stillLock(f); err != errHeld {
		t.Errorf("without a lock file: %v, want errHeld", err)
	}
	if err := d.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.stillLock(f); err != errHeld {
		t.Errorf("with another lock file: %v, want errHeld", err)
	}
}
