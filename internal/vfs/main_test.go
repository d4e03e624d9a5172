package vfs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/s3sink/s3sink/internal/vfs"
)

// asChild is the environment variable with the role of a child process: a test has
// started this program again.
const asChild = "VFS_TEST_CHILD"

func TestMain(m *testing.M) {
	var err error
	switch role, path, _ := strings.Cut(os.Getenv(asChild), " "); role {
	case "hold":
		err = hold(path)
	case "hold-with-child":
		err = holdWithChild(path)
	case "echo":
		_, err = io.Copy(os.Stdout, os.Stdin)
	default: // a test, maybe in a child: see inChild
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// hold holds the lock of a directory until its standard input ends.
func hold(path string) error {
	d, err := vfs.Open(path, vfs.Options{})
	if err != nil {
		return err
	}
	if err := d.Lock(context.Background()); err != nil {
		return err
	}
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// holdWithChild holds the lock and starts a child that echoes its input. The child
// outlives it.
func holdWithChild(path string) error {
	d, err := vfs.Open(path, vfs.Options{})
	if err != nil {
		return err
	}
	if err := d.Lock(context.Background()); err != nil {
		return err
	}
	if _, err := d.Create("open"); err != nil {
		return err
	}
	echo := exec.Command(os.Args[0])
	echo.Env = append(os.Environ(), asChild+"=echo")
	echo.Stdin, echo.Stdout = os.Stdin, os.Stdout
	if err := echo.Start(); err != nil {
		return err
	}
	fmt.Println("locked")
	return echo.Wait()
}

// child is a process of this program in one of the roles above.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(t *testing.T, role string) *child {
	t.Helper()
	c := newChild(t, role)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// newChild returns a child that the caller must start.
func newChild(t *testing.T, role string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0])}
	c.Env = append(os.Environ(), asChild+"="+role)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	t.Cleanup(func() {
		c.in.Close() // ends the child of the child too
		if c.Process != nil {
			c.Process.Kill()
			c.Wait()
		}
	})
	return c
}

// says waits for a line of the child.
func (c *child) says(t *testing.T, want string) {
	t.Helper()
	if got, err := c.out.ReadString('\n'); got != want+"\n" {
		t.Fatalf("the child says %q (%v), want %q", got, err, want)
	}
}

// inChild runs the test again in a separate process, with separate limits and
// mounts. It reports whether this process is that one.
func inChild(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(asChild) == "test" {
		return true
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), asChild+"=test")
	c.SysProcAttr = attr
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skip("this machine cannot start such a process: ", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("the test did not run in the child\n%s", out)
	}
	return false
}

// spool opens a new directory.
func spool(t *testing.T) (vfs.Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spool")
	return open(t, path), path
}

func open(t *testing.T, path string) vfs.Dir {
	t.Helper()
	d := must(vfs.Open(path, vfs.Options{}))(t)
	t.Cleanup(func() { d.Close() })
	return d
}

func create(t *testing.T, d vfs.Dir, name, content string) vfs.File {
	t.Helper()
	f := must(d.Create(name))(t)
	t.Cleanup(func() { f.Close() })
	must(f.Append([]byte(content)))(t)
	return f
}

func read(t *testing.T, f vfs.File) string {
	t.Helper()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, must(f.Size())(t)))
	check(t, err)
	return string(data)
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
