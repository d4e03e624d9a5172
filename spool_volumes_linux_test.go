package s3sink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// User and group of a pod, as runAsUser and fsGroup set them.
const (
	podUser = 1000
	fsGroup = 2000
)

// kubelet changes a volume as the kubelet does at each mount for a pod with
// fsGroup: the group of every entry, and the mode of every entry except
// symlinks. It never changes the owner. (SetVolumeOwnership in
// pkg/volume/volume_linux.go.)
func kubelet(volume string) error {
	return filepath.WalkDir(volume, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, fsGroup); err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&fs.ModeSymlink != 0 {
			return err
		}
		mode := info.Mode() | 0o660
		if info.IsDir() {
			mode |= 0o110 | fs.ModeSetgid
		}
		return os.Chmod(path, mode)
	})
}

// life describes the work of one process with a SpoolDir.
type life struct {
	Dir       string
	Recovered int64 // expected events of previous processes
	Track     int
	Deliver   bool // false: S3 is down, and all events stay in the spool
}

const lifeVariable = "S3SINK_TEST_LIFE"

// live does the work of the life in this process.
func live(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
	var l life
	if err := json.Unmarshal([]byte(os.Getenv(lifeVariable)), &l); err != nil {
		t.Fatal(err)
	}
	cfg.SpoolDir, cfg.Durability, cfg.Logger = l.Dir, s3sink.SyncEach, slog.New(slog.NewTextHandler(os.Stdout, nil))
	if !l.Deliver {
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
	}
	sink, err := s3sink.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for n := range l.Track {
		mustTrack(t, sink, map[string]int{"n": n})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = sink.Close(ctx)
	st, all := sink.Stats(), l.Recovered+int64(l.Track)
	if left := (*s3sink.CloseError)(nil); !l.Deliver && (!errors.As(err, &left) || left.Left != all) || st.Recovered != l.Recovered {
		t.Errorf("Close: %v; %d events were recovered, want %d, and %d left", err, st.Recovered, l.Recovered, all)
	}
	if l.Deliver && (err != nil || int64(len(lines(t, server, s3sinktest.Bucket))) != all) {
		t.Errorf("Close: %v; %d events are in S3, want %d", err, len(lines(t, server, s3sinktest.Bucket)), all)
	}
}

// livesAs runs a life in a process of another user, and returns its output. The
// path of the program is in /proc: the user may not enter the directory of the
// test binary.
func livesAs(t *testing.T, user uint32, l life) (string, error) {
	t.Helper()
	as := &syscall.Credential{Uid: user, Gid: user, Groups: []uint32{fsGroup}}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestSpoolDir_OnVolume$", "-test.v")
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	c.Env = append(os.Environ(), lifeVariable+"="+string(text))
	c.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	out, err := c.CombinedOutput()
	if err == nil && !bytes.Contains(out, []byte("--- PASS: TestSpoolDir_OnVolume")) {
		err = errors.New("the life was not run")
	}
	return string(out), err
}

// newVolume returns a directory that root owns and that other users may reach.
func newVolume(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: it needs root, to make volumes as kubelet does and to run processes of another user")
	}
	volume := filepath.Join(t.TempDir(), "volume")
	if err := errors.Join(os.Mkdir(volume, 0o700), os.Chmod(volume, mode), os.Chmod(filepath.Dir(filepath.Dir(volume)), 0o711)); err != nil {
		t.Fatal(err)
	}
	return volume
}

const modesAreSet = "other users had access to the spool directory"

// Given a volume as Kubernetes, Docker or systemd prepares it, when three
// processes of a user other than root use it one after another, each after a
// new mount, then each finds the events of the previous ones, no other user can
// use the spool, and a change of modes is logged. This test is also the program
// of those processes.
func TestSpoolDir_OnVolume(t *testing.T) {
	if os.Getenv(lifeVariable) != "" {
		bubble(t, live)
		return
	}
	t.Parallel()
	const private = "s3sink-spool"
	chown := func(path string) error { return os.Chown(path, podUser, podUser) }
	always := func(volume string, _ int) error { return kubelet(volume) }
	once := func(volume string, n int) error {
		if n > 0 {
			return nil
		}
		return kubelet(volume)
	}
	for name, tt := range map[string]struct {
		mode   fs.FileMode
		make   func(volume string) error // prepares the volume once
		mount  func(volume string, n int) error
		dir    string // SpoolDir in the volume
		home   string // directory of the spool in the volume
		warned bool
	}{
		"PVC, fsGroup":                           {mode: 0o755, mount: always, home: private, warned: true},
		"PVC, fsGroup, a directory of it":        {mode: 0o755, mount: always, dir: "spool", home: "spool", warned: true},
		"PVC, fsGroup, OnRootMismatch":           {mode: 0o755, mount: once, home: private},
		"PVC, fsGroup, OnRootMismatch, a subdir": {mode: 0o755, mount: once, dir: "a/b", home: "a/b"},
		"PVC, fsGroup, subPath": {mode: 0o755, mount: func(volume string, n int) error {
			sub := filepath.Join(volume, "sub")
			if err := kubelet(volume); err != nil || n > 0 {
				return err
			}
			return errors.Join(os.Mkdir(sub, 0o700), os.Chmod(sub, 0o775|fs.ModeSetgid), os.Chown(sub, 0, fsGroup))
		}, dir: "sub", home: "sub/" + private, warned: true},
		"PVC that the pod's user owns, fsGroup": {mode: 0o755, make: chown, mount: always, home: private, warned: true},
		"emptyDir":                              {mode: 0o777, home: private},
		"emptyDir, a directory of it":           {mode: 0o777, dir: "spool", home: "spool"},
		"emptyDir, fsGroup":                     {mode: 0o777, mount: always, home: private, warned: true},
		"emptyDir, sticky":                      {mode: 0o777 | fs.ModeSticky, home: private},
		"local-path provisioner":                {mode: 0o777, home: private},
		"hostPath, chown in an init container":  {mode: 0o755, make: chown, mount: func(v string, _ int) error { return chown(v) }},
		"Docker volume, chown in the image":     {mode: 0o755, make: chown},
		"systemd, StateDirectoryMode=0700":      {mode: 0o700, make: chown},
		"a spool, then chmod -R 777": {mode: 0o700, make: chown, mount: func(volume string, n int) error {
			if n == 0 {
				return nil
			}
			return exec.Command("chmod", "-R", "777", volume).Run()
		}, warned: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			volume := newVolume(t, tt.mode)
			if tt.make != nil {
				if err := tt.make(volume); err != nil {
					t.Fatal(err)
				}
			}
			dir, home := filepath.Join(volume, tt.dir), filepath.Join(volume, tt.home)
			for n, l := range []life{{dir, 0, 20, false}, {dir, 20, 5, false}, {dir, 25, 1, true}} {
				if tt.mount != nil {
					if err := tt.mount(volume, n); err != nil {
						t.Fatal(err)
					}
				}
				out, err := livesAs(t, podUser, l)
				if err != nil {
					t.Fatalf("life %d: %v\n%s", n, err, out)
				}
				if got := strings.Count(out, modesAreSet); got > 1 || (got == 1) != (tt.warned && n > 0) {
					t.Errorf("life %d: %d warnings, want them: %t\n%s", n, got, tt.warned && n > 0, out)
				}
				onlyFor(t, home, podUser)
			}
		})
	}
}

// onlyFor checks that only the user may write the directory of a spool and read
// its files.
func onlyFor(t *testing.T, home string, user uint32) {
	t.Helper()
	err := filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		allowed := fs.FileMode(0o600)
		if info.IsDir() {
			allowed = 0o755
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; owner != user || info.Mode().Perm()&^allowed != 0 {
			t.Errorf("%s belongs to %d and has mode %v", path, owner, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Given a volume on which this user cannot create a spool, then the error of
// New has the reason and the fix.
func TestSpoolDir_OnVolumeOfOthers(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"hostPath": "", "PVC without fsGroup": "spool"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			volume := newVolume(t, 0o755)
			out, err := livesAs(t, podUser, life{Dir: filepath.Join(volume, dir)})
			if want := volume + " is owned by another user: its user id is 0, "; err == nil || !strings.Contains(out, want) || !strings.Contains(out, "fsGroup") {
				t.Errorf("New has not said %q and what to do: %v\n%s", want, err, out)
			}
		})
	}
}

// Given a spool in a volume with fsGroup, when the user of the image changes,
// then New refuses the spool instead of starting another one, and no event is
// lost. After the chown that the error advises, the new user delivers the
// events.
func TestSpoolDir_UserChanges(t *testing.T) {
	t.Parallel()
	volume := newVolume(t, 0o755)
	if err := kubelet(volume); err != nil {
		t.Fatal(err)
	}
	if out, err := livesAs(t, podUser, life{volume, 0, 3, false}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := kubelet(volume); err != nil {
		t.Fatal(err)
	}
	out, err := livesAs(t, podUser+1, life{volume, 3, 0, true})
	if err == nil || !strings.Contains(out, "its user id is 1000, its mode is dgrwxrwx---, and this process runs as user 1001") || !strings.Contains(out, "chown -R") {
		t.Fatalf("New as another user: %v\n%s", err, out)
	}
	if out, err := exec.Command("chown", "-R", "1001", volume).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := livesAs(t, podUser+1, life{volume, 3, 1, true}); err != nil {
		t.Errorf("after the chown: %v\n%s", err, out)
	}
}

// Given a read-only root file system without a volume, then the error of New
// says that a volume is missing.
func TestSpoolDir_ReadOnlyRoot(t *testing.T) {
	t.Parallel()
	if !inChild(t, &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}) {
		return
	}
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
		t.Skip("SKIP: it may not mount here; run the tests as root: ", err)
	}
	defer syscall.Unmount(root, syscall.MNT_DETACH)
	_, cfg := s3sinktest.New(t)
	cfg.SpoolDir = filepath.Join(root, "spool")
	_, err := s3sink.New(t.Context(), cfg)
	if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), cfg.SpoolDir) || !strings.Contains(err.Error(), "mount a volume there") {
		t.Errorf("New = %v, want EROFS, the directory and what to do", err)
	}
}
