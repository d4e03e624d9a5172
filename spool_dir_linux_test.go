package s3sink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

const asChild = "S3SINK_TEST_CHILD"

// inChild runs the test again in a child process, which can have other limits
// and mounts. It reports whether this process is the child.
func inChild(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(asChild) != "" {
		return true
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), asChild+"=1")
	c.SysProcAttr = attr
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skip("it cannot have such a process here: ", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("%s", out)
	case !bytes.Contains(out, []byte("--- PASS: "+t.Name())):
		t.Errorf("it did not run\n%s", out)
	}
	return false
}

// Given a directory that a sink must not use, then New refuses it.
func TestSpoolDir_Refused(t *testing.T) {
	t.Parallel()
	_, cfg := s3sinktest.New(t)
	for name, bad := range map[string]func(path string) error{
		"file":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"symlink": func(path string) error { return os.Symlink(t.TempDir(), path) },
		"FIFO":    func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"someone else's": func(path string) error {
			if os.Geteuid() != 0 {
				return errors.ErrUnsupported
			}
			journal := filepath.Join(path, "0000000000000001-00000000.journal")
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(journal, nil, 0o600), os.Chown(journal, 12345, -1), os.Chown(path, 12345, -1))
		},
		"below a file": func(path string) error { return os.WriteFile(filepath.Dir(path), nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := cfg
			cfg.SpoolDir = filepath.Join(t.TempDir(), "spool")
			if name == "below a file" {
				cfg.SpoolDir += "/spool"
			}
			if err := bad(cfg.SpoolDir); errors.Is(err, errors.ErrUnsupported) {
				t.Skip("only root can make one")
			} else if err != nil {
				t.Fatal(err)
			}
			sink, err := s3sink.New(t.Context(), cfg)
			if err == nil {
				sink.Close(t.Context())
			}
			if wrong := (*s3sink.SpoolError)(nil); !errors.As(err, &wrong) || s3sink.Retryable(err) {
				t.Errorf("New: %v, want a SpoolError that is not retryable", err)
			}
		})
	}
}

// Given files of other programs in the directory, then they stay unchanged, and
// no open waits for the other end of a FIFO.
func TestSpoolDir_ForeignFiles(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.SpoolDir = filepath.Join(t.TempDir(), "spool")
		in := func(name string) string { return filepath.Join(cfg.SpoolDir, name) }
		const like = "0000000000000001-00000000.journal"
		err := errors.Join(os.Mkdir(cfg.SpoolDir, 0o700),
			os.WriteFile(in("notes.txt"), []byte("mine"), 0o600), os.WriteFile(in("x.journal"), nil, 0o600),
			os.Mkdir(in("subdirectory"), 0o700), os.Symlink("/etc/passwd", in("0000000000000002-00000000.journal")),
			syscall.Mkfifo(in(like), 0o600), os.WriteFile(in(strings.Repeat("n", 255)), nil, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		before := names(t, cfg.SpoolDir)
		for range 2 {
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			mustClose(t, sink)
		}
		if got := slices.DeleteFunc(names(t, cfg.SpoolDir), func(n string) bool { return n == "LOCK" }); !slices.Equal(got, before) {
			t.Errorf("the directory holds %q, had %q", got, before)
		}
		if n := len(lines(t, server, s3sinktest.Bucket)); n != 2 {
			t.Errorf("%d events, want 2", n)
		}
	})
}

// tracked tracks numbered lines until Track refuses a line. It returns the
// lines that were accepted, and the lines that may have been.
func tracked(t *testing.T, sink *s3sink.Sink, from, most int) (taken, maybe []string, err error) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, uint64(from)))
	for n := from; n < from+most; n++ {
		line := fmt.Sprintf(`{"n":%d,"text":%q}`, n, randomID(r, 3000))
		err = sink.TrackLine([]byte(line))
		switch {
		case errors.Is(err, s3sink.ErrOutcomeUnknown):
			return taken, append(maybe, line), err
		case err != nil:
			return taken, maybe, err
		}
		taken = append(taken, line)
	}
	return taken, maybe, nil
}

// Given a disk that is nearly full, then events are refused before a commit
// fails. With room again both continue, and no event is lost or stored twice.
func TestSpool_DiskFull(t *testing.T) {
	t.Parallel()
	attr := &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if !inChild(t, attr) {
		return
	}
	for _, durability := range []s3sink.Durability{s3sink.SyncEach, s3sink.SyncInterval} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			disk := t.TempDir()
			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "mode=0700,size=4m"); err != nil {
				t.Skip("it may not mount here: ", err)
			}
			defer syscall.Unmount(disk, syscall.MNT_DETACH)
			big := filepath.Join(disk, "big")
			if err := os.WriteFile(big, make([]byte, 3900<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg.SpoolDir, cfg.Durability = filepath.Join(disk, "spool"), durability
			cfg.MaxMemory, cfg.MaxEventBytes, cfg.CompressionLevel = 1<<20, 16<<10, 1
			cfg.UploadConcurrency = 1
			server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
			sink := open(t, cfg)
			taken, maybe, err := tracked(t, sink, 0, 5000)
			time.Sleep(3 * time.Second)
			wrong := (*s3sink.SpoolError)(nil)
			switch {
			case err == nil:
				t.Fatal("it takes what it has no room for")
			case durability == s3sink.SyncEach && !errors.As(err, &wrong):
				t.Errorf("SyncEach: %v, want a SpoolError", err)
			case durability == s3sink.SyncInterval && !errors.Is(err, s3sink.ErrBufferFull):
				t.Errorf("SyncInterval: %v, want ErrBufferFull", err)
			}
			if durability == s3sink.SyncEach {
				if more, unsure, err := tracked(t, sink, 5000, 10); len(more)+len(unsure) > 0 || !errors.As(err, &wrong) {
					t.Errorf("then %d and %d more, %v; want none", len(more), len(unsure), err)
				}
			}
			if st := sink.Stats(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "nearly full") || st.SpoolError != nil {
				t.Errorf("%v, Stats: %v, want an ENOSPC that comes before a commit fails", err, st.SpoolError)
			}
			if err := os.Remove(big); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if st := sink.Stats(); st.SpoolError != nil {
				t.Errorf("with room again: %v", st.SpoolError)
			}
			more, _, err := tracked(t, sink, 6000, 10)
			if err != nil {
				t.Errorf("with room again: %v", err)
			}
			server.ClearFaults()
			mustClose(t, sink)
			got := lines(t, server, s3sinktest.Bucket)
			got = slices.DeleteFunc(got, func(l string) bool { return slices.Contains(maybe, l) })
			if want := append(taken, more...); !slices.Equal(got, want) {
				t.Errorf("%d lines, want %d in order", len(got), len(want))
			}
		})
	}
}

// Given a directory that is removed, then no call blocks forever, and the
// counts balance.
func TestSpoolDir_Removed(t *testing.T) {
	t.Parallel()
	for _, durability := range []s3sink.Durability{s3sink.SyncEach, s3sink.SyncInterval} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			cfg.SpoolDir, cfg.Durability = filepath.Join(t.TempDir(), "spool"), durability
			sink := open(t, cfg)
			mustTrack(t, sink, map[string]int{"n": 1})
			time.Sleep(2 * time.Second)
			if err := os.RemoveAll(cfg.SpoolDir); err != nil {
				t.Fatal(err)
			}
			err := sink.Track(map[string]int{"n": 2})
			if wrong := (*s3sink.SpoolError)(nil); err != nil && (durability == s3sink.SyncInterval || !errors.As(err, &wrong)) {
				t.Errorf("Track: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			sink.Close(ctx)
			if st := sink.Stats(); st.Pending > 0 && !errors.Is(st.SpoolError, fs.ErrNotExist) {
				t.Errorf("%d events are left, and nobody knows why: %v", st.Pending, st.SpoolError)
			}
		})
	}
}

// Given ten thousand sources, then the spool has one open file.
func TestSpool_FewDescriptors(t *testing.T) {
	t.Parallel()
	if !inChild(t, nil) {
		return
	}
	const sources = 10_000
	bubble(t, func(t *testing.T, _ *s3sinktest.Server, cfg s3sink.Config) {
		low := syscall.Rlimit{Cur: 256, Max: 256}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		cfg.SpoolDir = filepath.Join(t.TempDir(), "spool")
		sink := open(t, cfg)
		descriptors := func() int { return len(names(t, "/proc/self/fd")) }
		before := descriptors()
		most := 0
		for n := range sources {
			src, err := sink.Source(fmt.Sprint("source-", n))
			if err != nil {
				t.Fatal(err)
			}
			mustTrack(t, src, struct{}{})
			if n%1000 == 0 {
				time.Sleep(2 * time.Second)
				most = max(most, descriptors())
			}
		}
		if most > before+20 {
			t.Errorf("%d descriptors are open, %d without events", most, before)
		}
		if st := sink.Stats(); st.Accepted != sources || st.SpoolError != nil {
			t.Errorf("%+v", st)
		}
	})
}

// Given wrong settings in the first process, when the next process has correct
// ones, then all pending objects are delivered with their original keys.
func TestSpool_DeliversOldKeysAfterFix(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.SpoolDir = filepath.Join(t.TempDir(), "spool")
		wrong := cfg
		wrong.Encryption = s3sink.SSEKMS("arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000")
		sink := open(t, wrong)
		for n := range 100 {
			mustTrack(t, sink, map[string]int{"n": n})
			if n%20 == 19 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if err := sink.Flush(ctx); err == nil {
					t.Error("a wrong KMS key delivers")
				}
				cancel()
			}
		}
		var left *s3sink.CloseError
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sink.Close(ctx); !errors.As(err, &left) || left.Left != 100 {
			t.Fatalf("Close: %v, want 100 left", err)
		}
		var keys []string // keys of the attempts
		for _, r := range server.Requests() {
			if !slices.Contains(keys, r.Key) {
				keys = append(keys, r.Key)
			}
		}

		cfg.CompressionLevel, cfg.MaxObjectEvents = 9, 7
		sink = open(t, cfg)
		mustClose(t, sink)
		if st := sink.Stats(); st.Recovered != 100 || st.Delivered != 100 {
			t.Errorf("%+v", st)
		}
		for _, o := range objects(t, server, s3sinktest.Bucket) {
			if !slices.Contains(keys, o.Key) && len(keys) > 4 {
				t.Errorf("%s is a new key; tried were %q", o.Key, keys)
			}
		}
		got := lines(t, server, s3sinktest.Bucket)
		if len(got) != 100 {
			t.Errorf("%d lines, want 100", len(got))
		}
	})
}

// Given objects for another bucket, then they stay in the spool until a sink
// has that bucket.
func TestSpool_KeepsObjectsOfOtherBucket(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.SpoolDir = filepath.Join(t.TempDir(), "spool")
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
		server.CreateBucket("other", cfg.Region)
		sink := open(t, cfg)
		for range 3 {
			mustTrack(t, sink, struct{}{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			sink.Flush(ctx)
			cancel()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		sink.Close(ctx)
		server.ClearFaults()

		other := cfg
		var log bytes.Buffer
		other.Bucket, other.Logger = "other", slog.New(slog.NewTextHandler(&log, nil))
		for range 2 {
			log.Reset()
			sink = open(t, other)
			mustTrack(t, sink, struct{}{})
			mustClose(t, sink)
			if st := sink.Stats(); st.Foreign != 3 || st.Delivered != 1 || st.Recovered != 0 {
				t.Errorf("%+v", st)
			}
			if n := strings.Count(log.String(), "another bucket"); n != 1 {
				t.Errorf("%d warnings:\n%s", n, log.String())
			}
		}
		if n := len(lines(t, server, s3sinktest.Bucket)); n != 0 {
			t.Errorf("%d lines came to the first bucket meanwhile", n)
		}

		sink = open(t, cfg)
		mustClose(t, sink)
		if st := sink.Stats(); st.Recovered != 3 || st.Delivered != 3 || st.Foreign != 0 {
			t.Errorf("%+v", st)
		}
		if got := names(t, cfg.SpoolDir); !slices.Equal(got, []string{"LOCK"}) {
			t.Errorf("left behind: %q", got)
		}
	})
}
