"""Images: checked and scaled in processes of their own."""
