package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// childVariable in the environment makes this program, or its test, a child
// with that role.
const childVariable = "S3SINK_BENCH_CHILD"

// roles are what a child can be told to do. It gets its job as JSON on its
// standard input, and writes what it has found to its standard output.
var roles = map[string]func(context.Context, *json.Decoder) (any, error){
	"fill":     as(fill),
	"read":     as(read),
	"recover":  as(reopen),
	"drain":    as(drain),
	"sources":  as(trackSources),
	"pipeline": as(pipeline),
	"each":     as(trackEach),
	"consume":  as(consume),
}

func as[J, R any](do func(context.Context, J) (R, error)) func(context.Context, *json.Decoder) (any, error) {
	return func(ctx context.Context, in *json.Decoder) (any, error) {
		var job J
		if err := in.Decode(&job); err != nil {
			return nil, err
		}
		return do(ctx, job)
	}
}

// child is the whole life of a child. It leaves what it has opened: a process
// that ends is what is measured next.
func child(role string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	found, err := roles[role](ctx, json.NewDecoder(os.Stdin))
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// ask has a child do something. peak is the most memory that it ever had
// resident, as the kernel tells whoever waits for it. On Linux that is never less than
// what its parent had when it was started, so the parent stays small: whatever
// takes memory is done by children.
func ask[R any](ctx context.Context, role string, job any) (found R, peak int64, err error) {
	self, err := os.Executable()
	if err != nil {
		return found, 0, err
	}
	told, err := json.Marshal(job)
	if err != nil {
		return found, 0, err
	}
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = []string{
		childVariable + "=" + role,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(told), &out, &problems
	if err := cmd.Run(); err != nil {
		return found, 0, fmt.Errorf("%s: %w: %s", role, err, problems.Bytes())
	}
	return found, peakOf(cmd.ProcessState), json.Unmarshal(out.Bytes(), &found)
}
