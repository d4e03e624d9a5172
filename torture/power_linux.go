package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// disk is a file system in an image file, or a tmpfs. An image can be shut down as
// if its power had failed.
type disk struct {
	fs, device, mountPoint string
	mounted                bool
}

// shutdownRequest is EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN. Flag 1 writes the log
// of the file system to disk, and flag 2 does not.
const shutdownRequest = 0x8004587D

// whyUnavailable returns the reason why a file system cannot be mounted here, or "".
func whyUnavailable(fs string) string {
	if os.Geteuid() != 0 {
		return "it needs root, to mount"
	}
	if fs == "tmpfs" {
		return ""
	}
	for _, tool := range []string{"mkfs." + fs, "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "it needs " + tool
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return "it needs loop devices"
	}
	return ""
}

func makeDisk(dir, fs string) (d *disk, err error) {
	size, args := int64(64<<20), []string{"-q", "-F"}
	switch fs {
	case "xfs":
		size, args = 320<<20, []string{"-q", "-f"} // the least that it takes
	case "btrfs":
		size, args = 128<<20, []string{"-q", "-f"}
	}
	image := filepath.Join(dir, "image")
	d = &disk{fs: fs, mountPoint: filepath.Join(dir, "mounted")}
	if err := os.Mkdir(d.mountPoint, 0o700); err != nil {
		return nil, err
	}
	if fs == "tmpfs" {
		return d, d.mount()
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, size); err != nil {
		return nil, err
	}
	if _, err := output("mkfs."+fs, append(args, image)...); err != nil {
		return nil, err
	}
	if d.device, err = output("losetup", "--find", "--show", image); err != nil {
		return nil, err
	}
	if err := d.mount(); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

func (d *disk) mount() error {
	options := ""
	if d.fs == "tmpfs" {
		options = "size=24m"
	}
	if err := syscall.Mount(cmp.Or(d.device, d.fs), d.mountPoint, d.fs, 0, options); err != nil {
		return fmt.Errorf("mount %s as %s: %w", d.device, d.fs, err)
	}
	d.mounted = true
	return nil
}

func (d *disk) unmount() (err error) {
	for range 100 {
		if err = syscall.Unmount(d.mountPoint, 0); !errors.Is(err, syscall.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", d.mountPoint, err)
	}
	d.mounted = false
	return nil
}

// cut shuts the file system down. Bytes in the page cache are not written.
func (d *disk) cut(flag int) error {
	f, err := os.Open(d.mountPoint)
	if err != nil {
		return err
	}
	defer f.Close()
	value := uint32(flag)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdownRequest, uintptr(unsafe.Pointer(&value))); errno != 0 {
		return fmt.Errorf("shut %s down: %w", d.mountPoint, errno)
	}
	return nil
}

// remount unmounts and mounts the file system, as after a power failure.
func (d *disk) remount() error {
	if err := d.unmount(); err != nil {
		return err
	}
	return d.mount()
}

func (d *disk) release() error {
	var errs []error
	if d.mounted {
		errs = append(errs, d.unmount())
	}
	if d.device != "" {
		_, err := output("losetup", "--detach", d.device)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
