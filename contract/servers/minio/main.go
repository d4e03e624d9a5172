// Command minio adds users to a MinIO server, or changes their policies: its admin API wants their secrets
// encrypted, in a way that only its own client knows. The module it is in is
// there to pin the version of the server, which is a program of its own and not
// part of this one.
//
// Standard input is a JSON array of users. Credentials of the server's owner
// are in ACCESS and SECRET.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/minio/madmin-go/v3"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

type user struct {
	ID, Secret string
	Policy     json.RawMessage // what the user may do; null: nothing
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("minio: ")
	address := flag.String("address", "", "host and port of the server")
	cert := flag.String("cert", "", "its certificate; empty: it speaks http")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, *address, *cert); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address, cert string) error {
	var users []user
	if err := json.NewDecoder(os.Stdin).Decode(&users); err != nil {
		return err
	}
	client, err := madmin.NewWithOptions(address, &madmin.Options{
		Creds:  credentials.NewStaticV4(os.Getenv("ACCESS"), os.Getenv("SECRET"), ""),
		Secure: cert != "",
	})
	if err != nil {
		return err
	}
	if cert != "" {
		pem, err := os.ReadFile(cert)
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in " + cert)
		}
		client.SetCustomTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}})
	}
	for _, u := range users {
		if err := add(ctx, client, u); err != nil {
			return err
		}
	}
	return nil
}

func add(ctx context.Context, client *madmin.AdminClient, u user) error {
	if err := client.AddUser(ctx, u.ID, u.Secret); err != nil {
		return err
	}
	if u.Policy == nil {
		return nil
	}
	if err := client.AddCannedPolicy(ctx, u.ID, u.Policy); err != nil {
		return err
	}
	_, err := client.AttachPolicy(ctx, madmin.PolicyAssociationReq{Policies: []string{u.ID}, User: u.ID})
	if madmin.ToErrorResponse(err).Code == "XMinioAdminPolicyChangeAlreadyApplied" {
		return nil // the user was there already, with another policy of that name
	}
	return err
}
