package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/s3sink/s3sink"
)

// flags are the flags behind the fields that an error names.
var flags = map[string]string{
	"Bucket": "bucket", "Prefix": "prefix", "SourceID": "source", "KeyFormat": "key-format",
	"Region": "region", "Endpoint": "endpoint", "STSRegion": "sts-region", "STSEndpoint": "sts-endpoint",
	"Credentials.RoleARN": "role", "Credentials.ExternalID": "external-id",
	"Encryption.Key": "sse", "ACL": "acl", "ExpectedBucketOwner": "expected-owner",
	"Setup.Caller": "caller", "Setup.Writer": "writer", "Setup.BucketKMSKey": "bucket-key",
}

// nameFlags says which flag is wrong where err says which field is.
func (o *options) nameFlags(err error) error {
	var errs []error
	for _, err := range parts(err) {
		var field *s3sink.ConfigError
		if !errors.As(err, &field) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, fmt.Errorf("-%s %q: want %s%s", o.flag(field), field.Value, field.Want, instead(field.Value)))
	}
	return errors.Join(errs...)
}

func (o *options) flag(e *s3sink.ConfigError) string {
	viaHas := func(part int) bool {
		return slices.ContainsFunc(o.via, func(v string) bool {
			return strings.SplitN(v+" ", " ", 3)[part] == e.Value
		})
	}
	switch {
	case e.Field == "Credentials.RoleARN" && e.Value != o.role && viaHas(0),
		e.Field == "Credentials.ExternalID" && e.Value != o.externalID && viaHas(1):
		return "via"
	case e.Field == "Prefix" && o.prefix == "":
		return "bucket" // NAME/PATH
	}
	return cmp.Or(flags[e.Field], e.Field)
}

// instead helps with what `aws sts get-caller-identity` prints of a service: a
// session, where policies want its role.
func instead(value string) string {
	p := strings.Split(value, ":")
	if len(p) != 6 || p[2] != "sts" {
		return ""
	}
	session := strings.Split(p[5], "/")
	if len(session) != 3 || session[0] != "assumed-role" {
		return ""
	}
	return fmt.Sprintf("; this is a session of arn:%s:iam::%s:role/%s (add the role's path before its name, if it has one)", p[1], p[4], session[1])
}

// parts takes joined errors apart.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, err := range joined.Unwrap() {
			all = append(all, parts(err)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
