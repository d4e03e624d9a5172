package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// What the demonstration is about.
const (
	demoBucket     = "acme-events"
	demoRegion     = "eu-west-1"
	demoOwner      = "123456789012"
	demoRole       = "arn:aws:iam::" + demoOwner + ":role/S3Sink"
	demoExternalID = "acme-42"
	demoCaller     = "arn:aws:iam::210987654321:user/checkout"
)

// demoPatience is how long each validation may take. It cuts short the wait for
// changes of IAM to be known everywhere, which here they are at once.
const demoPatience = 2 * time.Second

// demonstration is what -json prints of it.
type demonstration struct {
	Stages []stage `json:"stages"`
	Events int64   `json:"events"` // in the bucket at the end
}

// stage is what the sink could do after some of the policies were applied.
type stage struct {
	Applied []string                 `json:"applied"` // what they are
	Report  *s3sink.ValidationReport `json:"report"`
}

// demonstrate sets up a sink from nothing, and shows what Validate says on the
// way.
func demonstrate(ctx context.Context, out *printer, stderr io.Writer) (ok bool, err error) {
	server := s3sinktest.NewServer(s3sinktest.InMemory())
	defer server.Close()
	there := newAccount(server)
	cfg := demoConfig(there)
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	policies, err := cfg.Policies(s3sink.Setup{Caller: demoCaller})
	if err != nil {
		return false, err
	}
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer sink.Close(ctx)

	out.text("A demonstration, on an S3 and an STS inside this program, which enforce policies.\n"+
		"With -bucket it is about yours; see -h.\n\n"+
		"A new bucket: %s. In another account, a service that runs as\n%s. It may do nothing yet.\n"+
		"What must AWS allow, so that it can write to the bucket as a role?\n\n%s", demoBucket, demoCaller, policies)
	d := &demo{account: there, sink: sink, out: out}
	out.all.Policies, out.all.Demonstration = documents(policies), &d.demonstration
	mayAssume, mayWrite := split(policies)
	for _, stage := range []struct {
		title    string
		policies s3sink.Policies
		want     s3sink.ValidationCode // "": the sink can write
	}{
		{"Validate, before any of this is applied", nil, s3sink.CodeExternalIDRejected},
		{"Apply what lets the role be assumed, and validate", mayAssume, s3sink.CodePutObjectDenied},
		{"Apply what lets the role write, and validate", mayWrite, ""},
	} {
		if err := d.stage(ctx, stage.title, stage.policies, stage.want); err != nil {
			return false, err
		}
	}
	return true, d.send(ctx)
}

func demoConfig(there *account) s3sink.Config {
	id, secret := "AKIACHECKOUT00000000", rand.Text()
	there.addUser(demoCaller, id, secret)
	there.addBucket(demoBucket, demoRegion, s3sinktest.BucketSettings{Owner: demoOwner})
	return embedded(there.server, s3sink.Config{
		Bucket: demoBucket, SourceID: "checkout", Region: demoRegion,
		Credentials: s3sink.AssumeRole(demoRole, demoExternalID, s3sink.Via(s3sink.AccessKeys(id, secret, ""))),
	})
}

// embedded is cfg for a sink that reaches nothing but the server.
func embedded(server *s3sinktest.Server, cfg s3sink.Config) s3sink.Config {
	cfg.Endpoint, cfg.STSEndpoint, cfg.UsePathStyle = server.URL(), server.URL(), true
	cfg.AllowPlaintext = true // in memory
	cfg.HTTPClient, cfg.AWS = server.HTTPClient(), &aws.Config{}
	return cfg
}

// split tells the policies that let the role be assumed from the others.
func split(policies s3sink.Policies) (assume, write s3sink.Policies) {
	for _, d := range policies {
		if d.Policy.Statement[0].Action[0] == "sts:AssumeRole" {
			assume = append(assume, d)
		} else {
			write = append(write, d)
		}
	}
	return assume, write
}

type demo struct {
	account *account
	sink    *s3sink.Sink
	out     *printer
	demonstration
}

// stage applies policies, and Validate must say what is wanted.
func (d *demo) stage(ctx context.Context, title string, policies s3sink.Policies, want s3sink.ValidationCode) error {
	d.out.text("\n%s:\n\n", title)
	applied := []string{}
	for _, policy := range policies {
		if err := d.account.apply(policy); err != nil {
			return err
		}
		applied = append(applied, fmt.Sprintf("%s of %s", policy.Kind, policy.Of))
	}
	patience, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	report, err := d.sink.ValidateReport(patience)
	if err != nil {
		return err
	}
	d.Stages = append(d.Stages, stage{applied, report})
	d.out.text("%s", d.out.render(report))
	got := s3sink.ValidationCode("")
	if report.Err != nil {
		got = report.Err.Code
	}
	if got != want {
		return fmt.Errorf("this must not be: Validate says %q, want %q", got, want)
	}
	return ctx.Err()
}

// send shows that it is true.
func (d *demo) send(ctx context.Context) error {
	if err := d.sink.Track(map[string]any{"event": "Signed Up", "plan": "pro"}); err != nil {
		return err
	}
	if err := d.sink.Close(ctx); err != nil {
		return err
	}
	d.Events = d.sink.Stats().Delivered
	d.out.text("\nAnd so it does. In the bucket are now:\n\n")
	for _, object := range d.account.server.Objects(demoBucket) {
		d.out.text("  %s\n", object.Key)
	}
	return nil
}
