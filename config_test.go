package s3sink_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

func TestConfigReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := s3sink.New(t.Context(), s3sink.Config{
		Bucket:            "s3://acme-events",
		Prefix:            "a/../b",
		KeyFormat:         "{source}/{nope}/{uuid}",
		Region:            "Ireland",
		Endpoint:          "https://user:hunter2@s3.example.com",
		STSEndpoint:       "sts.example.com",
		CreateOnly:        9,
		SignPayload:       -1,
		MaxObjectBytes:    100_000_001,
		MaxObjectEvents:   -1,
		MaxObjectAge:      time.Millisecond,
		MaxEventBytes:     -5,
		MaxMemory:         7,
		MaxOpenPartitions: -1,
		CompressionLevel:  10,
		UploadConcurrency: -1,
		MinUploadRate:     -1,
		RetryParked:       time.Millisecond,
		Credentials: s3sink.AssumeRole("arn:aws:iam::1234:role/x", "!", s3sink.WithSessionName("?"), s3sink.WithDuration(time.Minute),
			s3sink.Via(s3sink.AccessKeys("", "", ""))),
	})
	var fields []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var wrong *s3sink.ConfigError
		if !errors.As(e, &wrong) {
			t.Fatalf("%v is not a ConfigError", e)
		}
		if wrong.Want == "" || !strings.Contains(e.Error(), wrong.Field) {
			t.Errorf("%v does not say what is wanted and where", e)
		}
		fields = append(fields, wrong.Field)
	}
	want := []string{
		"Bucket", "Prefix", "SourceID", "KeyFormat", "Region", "Endpoint", "STSEndpoint", "CreateOnly", "SignPayload",
		"MaxEventBytes", "MaxObjectBytes", "MaxObjectEvents", "MaxObjectAge", "MaxMemory", "MaxOpenPartitions",
		"CompressionLevel", "UploadConcurrency", "MinUploadRate", "RetryParked",
		"Credentials.RoleARN", "Credentials.ExternalID", "Credentials.SessionName", "Credentials.Duration",
		"Credentials.AccessKeyID", "Credentials.SecretAccessKey",
	}
	if !slices.Equal(fields, want) {
		t.Errorf("fields\n%q, want\n%q", fields, want)
	}
	if s := err.Error(); strings.Contains(s, "hunter2") {
		t.Errorf("a password is printed: %s", s)
	}
}

// Given an invalid value that may hold a password, then the error does not
// contain it.
func TestConfigError_HidesSecrets(t *testing.T) {
	t.Parallel()
	for _, cfg := range []s3sink.Config{
		{Bucket: "s3://AKIA:hunter2@bucket"},
		{Bucket: "https://bucket.s3.amazonaws.com/?X-Amz-Signature=hunter2"},
		{Endpoint: "https://user:hunter2%zz@host"},
		{Endpoint: "https://host/?X-Amz-Signature=hunter2"},
		{Endpoint: "user:hunter2@host:80"},
		{STSEndpoint: "https://user:hunter2@host"},
	} {
		if _, err := s3sink.New(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v", err)
		}
	}
}

func TestBucketNames(t *testing.T) {
	t.Parallel()
	for bucket, good := range map[string]bool{
		"acme-events": true, "acme.events": true, "acme-events/path/prefix": true, "acme-events/": true,
		"": false, "ab": false, "Acme": false, "acme_events": false, "-acme": false, strings.Repeat("a", 64): false,
		"s3://acme-events": false, "https://acme-events.s3.amazonaws.com": false, "arn:aws:s3:::acme-events": false,
		"/acme-events": false, "acme-events/../other": false, "acme-events/a\nb": false,
	} {
		cfg := new(nullStore).config()
		cfg.Bucket = bucket
		if _, err := s3sink.New(t.Context(), cfg); (err == nil) != good {
			t.Errorf("%q: %v, want good %t", bucket, err, good)
		}
	}
}

func TestPlaintextIsRefused(t *testing.T) {
	t.Parallel()
	for endpoint, good := range map[string]bool{
		"https://s3.example.com": true, "http://127.0.0.1:9000": true, "http://localhost:9000": true,
		"http://[::1]:9000": true, "http://minio.localhost": true,
		"http://s3.example.com": false, "http://10.0.0.1:9000": false, "http://localhost.example.com": false,
	} {
		cfg := new(nullStore).config()
		cfg.Endpoint = endpoint
		_, err := s3sink.New(t.Context(), cfg)
		if (err == nil) != good {
			t.Errorf("%s: %v, want good %t", endpoint, err, good)
		}
		cfg.AllowPlaintext = true
		if _, err := s3sink.New(t.Context(), cfg); err != nil {
			t.Errorf("%s with AllowPlaintext: %v", endpoint, err)
		}
	}
}

// Given an endpoint in the environment, then the sink uses it, logs it, and
// checks it like Config.Endpoint.
func TestEndpoint_FromEnvironment(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	for _, name := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"} {
		t.Setenv(name, "http://store.example.com")
		var wrong *s3sink.ConfigError
		if _, err := s3sink.New(t.Context(), s3sink.Config{Bucket: "acme-events", SourceID: "x"}); !errors.As(err, &wrong) {
			t.Errorf("%s: %v, want plaintext refused", name, err)
		}
		t.Setenv(name, "")
	}
	var log strings.Builder
	server, cfg := s3sinktest.New(t)
	t.Setenv("AWS_ENDPOINT_URL_S3", server.URL())
	cfg.AWS, cfg.Endpoint = nil, ""
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	sink := open(t, cfg)
	mustTrack(t, sink, struct{}{})
	mustClose(t, sink)
	if n := len(lines(t, server, s3sinktest.Bucket)); n != 1 || !strings.Contains(log.String(), server.URL()) {
		t.Errorf("%d events at the endpoint; log %s", n, log.String())
	}
}

func TestRoleARNs(t *testing.T) {
	t.Parallel()
	for arn, good := range map[string]bool{
		"arn:aws:iam::123456789012:role/S3Sink":                true,
		"arn:aws:iam::123456789012:role/service/events/S3":     true,
		"arn:aws-cn:iam::123456789012:role/S3Sink":             true,
		"arn:aws-us-gov:iam::123456789012:role/S3Sink":         true,
		"arn:aws:iam::12345678901:role/S3Sink":                 false,
		"arn:aws:iam::123456789012:user/S3Sink":                false,
		"arn:aws:sts::123456789012:assumed-role/S3Sink/x":      false,
		"arn:azure:iam::123456789012:role/S3Sink":              false,
		"arn:aws:iam::123456789012:role/":                      false,
		"arn:aws:iam::123456789012:role/a b":                   false,
		"arn:aws:iam::123456789012:role/S3Sink\nInjected: yes": false,
		"": false,
	} {
		cfg := new(nullStore).config()
		cfg.Credentials = s3sink.AssumeRole(arn, "")
		if _, err := s3sink.New(t.Context(), cfg); (err == nil) != good {
			t.Errorf("%q: %v, want good %t", arn, err, good)
		}
	}
}

// Given only Bucket and SourceID, then New accepts the Config.
func TestConfig_TwoRequiredFields(t *testing.T) {
	for _, name := range []string{"AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", t.TempDir()+"/none")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	sink, err := s3sink.New(t.Context(), s3sink.Config{Bucket: "acme-events", SourceID: "checkout"})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, sink)
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	cfg := new(nullStore).config()
	cfg.Credentials = s3sink.AssumeRole("arn:aws:iam::123456789012:role/S3Sink", "external-id",
		s3sink.Via(s3sink.AccessKeys("AKIA", canary, canary+"-token")))
	var out strings.Builder
	for _, v := range []any{cfg, &cfg, cfg.Credentials} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		text, _ := json.Marshal(v)
		out.Write(text)
	}
	cfg.Bucket = "Bad Bucket"
	_, err := s3sink.New(t.Context(), cfg)
	fmt.Fprintf(&out, "%v %+v %#v", err, err, err)
	for _, secret := range []string{canary, fmt.Sprintf("%x", canary)} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is printed", secret)
		}
	}
}
