// Scenarios of the building blocks around a caller: events in every way of the SDK, state, locks, configuration, keys.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
)

// saw waits until an app has seen each of the events, as the JSON of their data.
func saw(ctx context.Context, dapr client.Client, app string, wanted ...string) error {
	for {
		answer, err := dapr.InvokeMethod(ctx, app, "seen", "get")
		if err != nil {
			return fmt.Errorf("%s: %w", app, err)
		}
		lines := strings.Split(string(answer), "\n")
		if !slices.ContainsFunc(wanted, func(one string) bool { return !slices.Contains(lines, one) }) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s saw %q", app, lines)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func bulk(ctx context.Context, dapr client.Client, apps []string) error {
	events := []interface{}{"bulk text", map[string]int{"bulk": 2}, client.PublishEventsEvent{
		EntryID: "third", Data: []byte(`{"bulk":3}`), ContentType: "application/json",
	}}
	sent := dapr.PublishEvents(ctx, "bus", "go.orders", events)
	if sent.Error != nil || len(sent.FailedEvents) > 0 {
		return fmt.Errorf("bulk publish: %v %v", sent.Error, sent.FailedEvents)
	}
	for _, app := range apps {
		if err := saw(ctx, dapr, app, `"bulk text"`, `{"bulk":2}`, `{"bulk":3}`); err != nil {
			return err
		}
	}
	return nil
}

// declared is about a subscription of a resource file, whose route the HTTP app serves.
func declared(ctx context.Context, dapr client.Client, apps []string) error {
	if err := dapr.PublishEvent(ctx, "bus", "declared", map[string]string{"declared": "yes"}); err != nil {
		return err
	}
	return saw(ctx, dapr, apps[0], `{"declared":"yes"}`)
}

func streams(ctx context.Context, dapr client.Client, _ []string) error {
	stream, err := dapr.Subscribe(ctx, client.SubscriptionOptions{PubsubName: "bus", Topic: "go.streamed"})
	if err != nil {
		return err
	}
	if err := dapr.PublishEvent(ctx, "bus", "go.streamed", map[string]int{"n": 1}); err != nil {
		return err
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	if err := first.Retry(); err != nil {
		return err
	}
	again, err := stream.Receive()
	if err != nil {
		return err
	}
	if again.ID != first.ID || string(again.RawData) != `{"n":1}` || again.Topic != "go.streamed" {
		return fmt.Errorf("after RETRY: %+v, first %+v", again.TopicEvent, first.TopicEvent)
	}
	if err := again.Success(); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	taken := make(chan string, 10)
	options := client.SubscriptionOptions{PubsubName: "bus", Topic: "go.handled"}
	stop, err := dapr.SubscribeWithHandler(ctx, options, func(event *common.TopicEvent) common.SubscriptionResponseStatus {
		taken <- fmt.Sprint(event.Data)
		return common.SubscriptionResponseStatusSuccess
	})
	if err != nil {
		return err
	}
	for _, text := range []string{"ping", "pong"} {
		if err := dapr.PublishEvent(ctx, "bus", "go.handled", text); err != nil {
			return err
		}
		select {
		case got := <-taken:
			if got != text {
				return fmt.Errorf("handler got %q, not %q", got, text)
			}
		case <-ctx.Done():
			return fmt.Errorf("the handler did not get %q", text)
		}
	}
	return stop()
}

func transaction(ctx context.Context, dapr client.Client, _ []string) error {
	if err := dapr.SaveState(ctx, "statestore", "gone", []byte("x"), nil); err != nil {
		return err
	}
	operations := []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "came", Value: []byte("new")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "gone"}},
	}
	if err := dapr.ExecuteStateTransaction(ctx, "statestore", nil, operations); err != nil {
		return err
	}
	found, err := dapr.GetBulkState(ctx, "statestore", []string{"came", "gone"}, nil, 4)
	if err != nil {
		return err
	}
	if len(found) != 2 || string(found[0].Value) != "new" || len(found[1].Value) > 0 {
		return fmt.Errorf("after the transaction: %+v %+v", found[0], found[1])
	}
	old := []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "gone", Value: []byte("never")}},
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{
			Key: "came", Value: []byte("never"), Etag: &client.ETag{Value: "1"},
		}},
	}
	if err := dapr.ExecuteStateTransaction(ctx, "statestore", nil, old); err == nil {
		return errors.New("a transaction with an old ETag was made")
	}
	item, err := dapr.GetState(ctx, "statestore", "gone", nil)
	if err != nil {
		return err
	}
	return equal("a refused transaction", item.Value, "")
}

func ttl(ctx context.Context, dapr client.Client, _ []string) error {
	short := map[string]string{"ttlInSeconds": "1"}
	item := &client.StateItem{}
	var err error
	// Again if its time is over before it is read.
	for len(item.Value) == 0 {
		if err = dapr.SaveState(ctx, "statestore", "short", []byte("here"), short); err != nil {
			return err
		}
		if item, err = dapr.GetState(ctx, "statestore", "short", nil); err != nil {
			return err
		}
	}
	if err := equal("before its end", item.Value, "here"); err != nil {
		return err
	}
	for len(item.Value) > 0 {
		if item, err = dapr.GetState(ctx, "statestore", "short", nil); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func lock(ctx context.Context, dapr client.Client, _ []string) error {
	try := func(owner string) (bool, error) {
		request := &client.LockRequest{ResourceID: "go", LockOwner: owner, ExpiryInSeconds: 60}
		answer, err := dapr.TryLockAlpha1(ctx, "locks", request)
		if err != nil {
			return false, err
		}
		return answer.Success, nil
	}
	free := func(owner string) string {
		answer, err := dapr.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{ResourceID: "go", LockOwner: owner})
		if err != nil {
			return err.Error()
		}
		return answer.Status
	}
	for _, step := range []struct {
		owner string
		taken bool
	}{{"one", true}, {"two", false}} {
		if taken, err := try(step.owner); err != nil || taken != step.taken {
			return fmt.Errorf("lock for %s: %v %v", step.owner, taken, err)
		}
	}
	told := strings.Join([]string{free("two"), free("one"), free("one")}, " ")
	return equal("unlocks", []byte(told), "LOCK_BELONGS_TO_OTHERS SUCCESS LOCK_DOES_NOT_EXIST")
}

func configuration(ctx context.Context, dapr client.Client, _ []string) error {
	found, err := dapr.GetConfigurationItems(ctx, "settings", []string{"fixed", "absent"})
	if err != nil {
		return err
	}
	if len(found) != 1 || found["fixed"].Value != "blue" {
		return fmt.Errorf("configuration: %+v", found)
	}
	values := make(chan string, 100)
	handler := func(_ string, items map[string]*client.ConfigurationItem) {
		if item := items["changing"]; item != nil {
			values <- item.Value
		}
	}
	id, err := dapr.SubscribeConfigurationItems(ctx, "settings", []string{"changing"}, handler)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for len(seen) < 2 {
		select {
		case value := <-values:
			seen[value] = true
		case <-ctx.Done():
			return fmt.Errorf("values of a changing item: %v", seen)
		}
	}
	return dapr.UnsubscribeConfigurationItems(ctx, "settings", id)
}

func keys(ctx context.Context, dapr client.Client, _ []string) error {
	plain := bytes.Repeat([]byte("secret "), 30_000)
	options := client.EncryptOptions{ComponentName: "vault", KeyName: "key", KeyWrapAlgorithm: "A256KW"}
	sealed, err := dapr.Encrypt(ctx, bytes.NewReader(plain), options)
	if err != nil {
		return err
	}
	document, err := io.ReadAll(sealed)
	if err != nil {
		return err
	}
	opened, err := dapr.Decrypt(ctx, bytes.NewReader(document), client.DecryptOptions{ComponentName: "vault"})
	if err != nil {
		return err
	}
	text, err := io.ReadAll(opened)
	if err != nil {
		return err
	}
	if bytes.Contains(document, []byte("secret")) || !bytes.Equal(text, plain) {
		return errors.New("the document is not what was encrypted")
	}
	return nil
}
