//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// disk is available on Linux only.
type disk struct{ mountPoint string }

func whyUnavailable(string) string { return "it needs Linux, to shut a file system down" }

func makeDisk(string, string) (*disk, error) { return nil, errors.ErrUnsupported }
func (*disk) cut(int) error                  { return errors.ErrUnsupported }
func (*disk) remount() error                 { return errors.ErrUnsupported }
func (*disk) release() error                 { return nil }

func (p *plan) fill(_ context.Context, out io.Writer) error {
	_, err := fmt.Fprintln(out, "SKIP full:", whyUnavailable(""))
	return err
}
