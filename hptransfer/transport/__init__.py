"""Transport in training: does a gradient ahead of X lower the loss, and when?"""
